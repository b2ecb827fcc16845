// Package hub downloads checkpoints from Hugging Face, ModelScope and Modelers into the cache layout of Hugging Face's own
// library, so that what either of the two has downloaded serves the other:
//
//	models--ORG--NAME/refs/REVISION             the commit that a branch or tag was at
//	models--ORG--NAME/blobs/ETAG                contents by their hash; ETAG.incomplete while on the way
//	models--ORG--NAME/snapshots/COMMIT/FILE     links to blobs
//	.locks/models--ORG--NAME/ETAG.lock          held while a blob is downloaded
//
// The way of a pull:
//
//	hub.go     Pull: what is asked for, what is there already, what to report
//	select.go  which of a repository's files serving needs
//	remote.go  the hubs' dialects: listing a repository, a file's address, errors
//	fetch.go   one file: ranges, retries, limits, checksums
//	cache.go   the layout
//
// Nothing that a hub says is trusted: names stay inside the folder, sizes are what was announced, contents are what their
// hashes say, and the token goes to the hub's own address only.
package hub
