// Package server speaks HTTP: routes, middleware and the dialects that turn JSON into an engine.Request and
// engine.Events back into JSON. It knows no backend.
//
// A request's way: requestID → observe (access log, metrics) → recoverer → limits → secure → checkHost → cors →
// crossSite → authorize → route → dialect → generate → engine. Errors of all kinds are written by writeError.
package server
