package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"pagoda/ffi"
)

// loadWith loads a tokenizer.json together with the added tokens that configuration and options name. Most files have
// them all already. plain is a second one that finds no control tokens in text, nil unless the options want it.
func loadWith(data []byte, conf *config, o Options) (inner, plain *ffi.Tokenizer, err error) {
	if inner, err = ffi.LoadTokenizer(data); err != nil {
		return nil, nil, err
	}
	if more := missing(inner, conf, o); len(more) > 0 {
		inner.Close()
		if data, err = withAdded(data, more); err != nil {
			return nil, nil, err
		}
		if inner, err = ffi.LoadTokenizer(data); err != nil {
			return nil, nil, err
		}
	}
	if o.SplitSpecialTokens {
		if plain, err = ffi.LoadPlainTokenizer(data); err != nil {
			inner.Close()
			return nil, nil, err
		}
	}
	return inner, plain, nil
}

// missing returns the added tokens that t lacks, in the order in which they get ids: those of added_tokens_decoder by
// their ids, the named ones if the vocabulary has them, the other control tokens, then those of the options.
func missing(t *ffi.Tokenizer, conf *config, o Options) (more []addedToken) {
	has := map[string]bool{} // whether the token is a control token
	for _, a := range t.Added() {
		has[a.Content] = a.Special
	}
	named := map[string]bool{}
	for _, n := range conf.named() {
		named[n.Content] = true
	}
	add := func(a addedToken) {
		if special, ok := has[a.Content]; a.Content != "" && (!ok || a.Special && !special) {
			more = append(more, a)
			has[a.Content] = a.Special
		}
	}
	for _, id := range slices.Sorted(maps.Keys(conf.AddedTokens)) {
		a := conf.AddedTokens[id]
		a.Special = a.Special || named[a.Content]
		add(a)
	}
	for _, n := range conf.named() {
		if _, ok := t.ID(n.Content); ok {
			add(n.addedToken)
		}
	}
	for _, e := range conf.extra() {
		add(e.addedToken)
	}
	for _, content := range o.AddTokens {
		if _, ok := t.ID(content); !ok {
			add(addedToken{Content: content, Normalized: true})
		}
	}
	for _, content := range o.AddSpecialTokens {
		add(addedToken{Content: content, Special: true})
	}
	return more
}

// withAdded returns a tokenizer.json with more added tokens; one that is there already only becomes a control token.
func withAdded(data []byte, more []addedToken) ([]byte, error) {
	start, end, err := member(data, "added_tokens")
	if err != nil {
		return nil, fmt.Errorf("tokenizer.json: %w", err)
	}
	var all []addedToken
	if err := json.Unmarshal(data[start:end], &all); err != nil {
		return nil, fmt.Errorf("tokenizer.json: added_tokens: %w", err)
	}
	for _, a := range more {
		i := slices.IndexFunc(all, func(b addedToken) bool { return b.Content == a.Content })
		if i < 0 {
			a.ID = 0 // which is not heeded
			all = append(all, a)
		} else {
			all[i].Special = all[i].Special || a.Special
		}
	}
	list, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	return slices.Concat(data[:start], list, data[end:]), nil
}

// member returns where a member of a JSON object lies. It reads no further than that, since what follows may be large.
func member(data []byte, name string) (start, end int, err error) {
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return 0, 0, errors.New("not a JSON object")
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return 0, 0, err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return 0, 0, err
		}
		if key == name {
			end = int(d.InputOffset())
			return end - len(value), end, nil
		}
	}
	return 0, 0, fmt.Errorf("it has no %s", name)
}
