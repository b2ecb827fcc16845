package jinja

import (
	"strings"
	"unicode"
)

// Letters whose upper or title case is more than one letter are in casing_table.go; the rest is in
// package unicode.

func upper(s string) string {
	return mapCase(s, func(r rune) (rune, string) { return unicode.ToUpper(r), upperTable[r] })
}

func lower(s string) string {
	runes := []rune(s)
	var out strings.Builder
	out.Grow(len(s))
	for i, r := range runes {
		writeLower(&out, runes, i, r)
	}
	return out.String()
}

func writeLower(out *strings.Builder, runes []rune, i int, r rune) {
	switch {
	case r == 'İ':
		out.WriteString("i̇")
	case r == 'Σ' && finalSigma(runes, i):
		out.WriteRune('ς')
	default:
		out.WriteRune(unicode.ToLower(r))
	}
}

// finalSigma says whether the Σ at i ends a word.
func finalSigma(runes []rune, i int) bool {
	before := i - 1
	for before >= 0 && caseIgnorable(runes[before]) {
		before--
	}
	after := i + 1
	for after < len(runes) && caseIgnorable(runes[after]) {
		after++
	}
	return before >= 0 && isCased(runes[before]) && (after == len(runes) || !isCased(runes[after]))
}

func caseIgnorable(r rune) bool {
	return unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf, unicode.Lm, unicode.Sk) || strings.ContainsRune("'.:·’‘․", r)
}

func mapCase(s string, f func(rune) (rune, string)) string {
	var out strings.Builder
	out.Grow(len(s))
	for _, r := range s {
		one, more := f(r)
		if more != "" {
			out.WriteString(more)
		} else {
			out.WriteRune(one)
		}
	}
	return out.String()
}

func titleOne(r rune) string {
	if t, ok := titleTable[r]; ok {
		return t
	}
	return string(unicode.ToTitle(r))
}

// title starts every run of letters with a capital.
func title(s string) string {
	runes := []rune(s)
	var out strings.Builder
	inWord := false
	for i, r := range runes {
		if inWord {
			writeLower(&out, runes, i, r)
		} else {
			out.WriteString(titleOne(r))
		}
		inWord = isCased(r)
	}
	return out.String()
}

func capitalize(s string) string {
	runes := []rune(s)
	var out strings.Builder
	for i, r := range runes {
		if i == 0 {
			out.WriteString(titleOne(r))
		} else {
			writeLower(&out, runes, i, r)
		}
	}
	return out.String()
}

func swapcase(s string) string {
	runes := []rune(s)
	var out strings.Builder
	for i, r := range runes {
		switch {
		case isUpper(r):
			writeLower(&out, runes, i, r)
		case isLower(r):
			out.WriteString(upper(string(r)))
		default:
			out.WriteRune(r)
		}
	}
	return out.String()
}

func isLower(r rune) bool { return unicode.IsLower(r) || unicode.Is(unicode.Other_Lowercase, r) }
func isUpper(r rune) bool { return unicode.IsUpper(r) || unicode.Is(unicode.Other_Uppercase, r) }
func isCased(r rune) bool { return isLower(r) || isUpper(r) || unicode.IsTitle(r) }

// cased says whether s has letters with case and all of them are of this one.
func cased(s string, is func(rune) bool) bool {
	found := false
	for _, r := range s {
		if isCased(r) {
			if !is(r) {
				return false
			}
			found = true
		}
	}
	return found
}

func istitle(s string) any {
	found, inWord := false, false
	for _, r := range s {
		switch {
		case isUpper(r) || unicode.IsTitle(r):
			if inWord {
				return false
			}
			inWord, found = true, true
		case isLower(r):
			if !inWord {
				return false
			}
			found = true
		default:
			inWord = false
		}
	}
	return found
}

// otherDigits are digits that are not decimal: superscripts, circled ones and the like.
var otherDigits = &unicode.RangeTable{
	R16: []unicode.Range16{
		{0xb2, 0xb3, 1}, {0xb9, 0xb9, 1}, {0x1369, 0x1371, 1}, {0x19da, 0x19da, 1}, {0x2070, 0x2070, 1},
		{0x2074, 0x2079, 1}, {0x2080, 0x2089, 1}, {0x2460, 0x2468, 1}, {0x2474, 0x247c, 1}, {0x2488, 0x2490, 1},
		{0x24ea, 0x24ea, 1}, {0x24f5, 0x24fd, 1}, {0x24ff, 0x24ff, 1}, {0x2776, 0x277e, 1}, {0x2780, 0x2788, 1},
		{0x278a, 0x2792, 1},
	},
	R32: []unicode.Range32{
		{0x10a40, 0x10a43, 1}, {0x10e60, 0x10e68, 1}, {0x11052, 0x1105a, 1}, {0x1f100, 0x1f10a, 1},
	},
	LatinOffset: 2,
}

func isDigit(r rune) bool { return unicode.Is(unicode.Nd, r) || unicode.Is(otherDigits, r) }
