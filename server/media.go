package server

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	jsonv2 "github.com/go-json-experiment/json"

	"pagoda/openapi"
)

// hasMedia says whether a content holds more than text.
func hasMedia(content *openapi.Content) bool {
	return slices.ContainsFunc(content.Parts, func(p openapi.ContentPart) bool { return p.Type != "text" && p.Type != "refusal" })
}

// mediaParts checks a content list that goes to an upstream as the client wrote it.
func (c *checker) mediaParts(path string, parts []openapi.ContentPart) []json.RawMessage {
	out := make([]json.RawMessage, len(parts))
	for i := range parts {
		out[i] = c.mediaPart(fmt.Sprintf("%s[%d].", path, i), &parts[i])
	}
	return out
}

func (c *checker) mediaPart(path string, p *openapi.ContentPart) json.RawMessage {
	part := map[string]json.RawMessage{"type": quote(p.Type)}
	switch p.Type {
	case "text":
		if text := c.part(path, p, false); text != nil {
			part["text"] = quote(*text)
		}
		return appendJSON(nil, part)
	case "image_url", "video_url", "audio_url":
		c.mediaURL(path+p.Type, p.Unknown[p.Type])
	case "input_audio":
		if p.Unknown[p.Type] == nil {
			c.bad(path+p.Type, "is required")
		}
	default:
		c.bad(path+"type", "must be text, image_url, video_url, audio_url or input_audio")
	}
	for name, value := range p.Unknown {
		if name != p.Type {
			c.nested(path, openapi.Unknown{name: value})
		}
		part[name] = value
	}
	return appendJSON(nil, part)
}

// mediaURL takes data: URLs only: an upstream fetches others itself, from wherever a client says.
func (c *checker) mediaURL(path string, raw json.RawMessage) {
	var url struct {
		URL string `json:"url"`
	}
	if len(raw) == 0 {
		c.bad(path, "is required")
		return
	}
	if jsonv2.Unmarshal(raw, &url.URL) != nil && jsonv2.Unmarshal(raw, &url) != nil {
		c.bad(path, "must be an object with a url")
		return
	}
	if !strings.HasPrefix(strings.ToLower(url.URL), "data:") {
		c.bad(path+".url", "must be a data: URL: nothing is fetched for a request")
	}
}
