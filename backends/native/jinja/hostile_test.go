package jinja_test

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"pagoda/backends/native/jinja"
)

// hostile is a template that must end soon, in little memory, with an error of this kind ("" is none), for some with
// the name of the limit.
type hostile struct{ kind, source, context string }

func times(n int, s string) string { return strings.Repeat(s, n) }

// doubled sets ns.x, and ns.y likewise, to a value of 2^100 leaves that are one.
func doubled(pair string) string {
	y := strings.ReplaceAll(pair, "ns.x", "ns.y")
	return "{% set ns = namespace(x=1, y=1) %}{% for i in range(100) %}{% set ns.x = " + pair + " %}{% set ns.y = " + y + " %}{% endfor %}"
}

// deep sets ns.x and ns.y to lists 5,000 deep.
const deep = "{% set ns = namespace(x=[], y=[]) %}{% for i in range(5000) %}{% set ns.x = [ns.x] %}{% set ns.y = [ns.y] %}{% endfor %}"

// forever repeats a statement longer than any limit.
func forever(s string) string {
	return "{% for i in range(100000) %}{% for j in range(100000) %}" + s + "{% endfor %}{% endfor %}"
}

// keep makes ever more of a value and holds on to all of it.
func keep(value string) string {
	return "{% set ns = namespace(x=0) %}" + forever("{% set ns.x = [ns.x, "+value+"] %}")
}

// manyKeys are the members of a JSON object.
func manyKeys(n int) string {
	var out strings.Builder
	for i := range n {
		fmt.Fprintf(&out, `,"k%d":%d`, i, i)
	}
	return out.String()[1:]
}

var hostiles = map[string][]hostile{
	"recursion": {
		{"limit", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", ""},
		{"limit", "{% macro f(g) %}{{ g(g) }}{% endmacro %}{{ f(f) }}", ""},
		{"limit", "{% macro f(a=f()) %}{% endmacro %}{{ f() }}", ""},
		{"limit", "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(90) }}", ""},
		{"limit", "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", ""},
		{"limit", "{% macro f() %}{{ caller() }}{% endmacro %}{% macro g() %}{% call f() %}{{ g() }}{% endcall %}{% endmacro %}{{ g() }}", ""},
		{"limit", "{% macro f(n) %}" + times(90, "{% for x in [1] %}") + "{{ " + times(80, "[") + "f(n)" + times(80, "]") + " }}" + times(90, "{% endfor %}") + "{% endmacro %}{{ f(1) }}", ""},
		{"limit", "{% macro f(n) %}{{ (1" + times(1900, "+0") + "+f(n)) }}{% endmacro %}{{ f(1) }}", ""},
		{"limit", "{% macro f(n) %}{{ (f(n)" + times(1900, "+0") + ") }}{% endmacro %}{{ f(1) }}", ""},
		{"limit", "{% macro f() %}{{ f(*varargs) }}{% endmacro %}{{ f(*([1] * 100000)) }}", ""},
	},
	"loops": {
		{"OverflowError", "{% for i in range(10**8) %}{% endfor %}", ""},
		{"limit", forever(""), ""},
		{"limit", forever("{{ loop.cycle(*([1] * 100000)) }}"), ""},
		{"limit", "{% set l = [1] * 10000 %}" + forever("{{ loop.changed(l + []) }}"), ""},
	},
	"growth": {
		{"limit", "{{ 'a' * 10**9 }}", ""},
		{"limit", "{{ ('a' * 10**6) * 10**6 }}", ""},
		{"limit", "{{ 'a' * 10**30 }}", ""},
		{"limit", "{{ ([[0] * 10**4] * 10**6)|length }}", ""},
		{"limit", "{% set ns = namespace(s='ab') %}" + forever("{% set ns.s = ns.s + ns.s %}"), ""},
		{"limit", "{% set ns = namespace(s='ab') %}" + forever("{% set ns.s = ns.s ~ ns.s %}"), ""},
		{"limit", "{% set ns = namespace(s=[1]) %}" + forever("{% set ns.s = ns.s + ns.s %}"), ""},
		{"limit", "{% set ns = namespace(s='aa') %}" + forever("{% set ns.s = ns.s|replace('a', 'aa') %}"), ""},
		{"limit", "{% set ns = namespace(s='aa') %}" + forever("{% set ns.s = [ns.s, ns.s]|join(ns.s) %}"), ""},
		{"limit", "{% set ns = namespace(s='\\\\') %}" + forever("{% set ns.s = [ns.s]|string %}"), ""},
		{"limit", "{% set ns = namespace(s='<') %}" + forever("{% set ns.s = ns.s|forceescape|forceescape %}"), ""},
		{"limit", "{{ ('a' * 100000).replace('', 'b' * 100000) }}", ""},
		{"limit", "{{ ('b' * 100000).join(['a' * 100000] * 1000) }}", ""},
		{"limit", "{% set s = ',' * 1000000 %}" + forever("{% set x = s.split(',') %}"), ""},
		{"limit", "{{ ('\\n' * 1000000).splitlines() }}", ""},
		{"limit", "{{ ('a ' * 1000000).split() }}", ""},
		{"limit", "{{ ('\\na' * 1000)|indent(10**9) }}", ""},
		{"limit", "{{ ('\\t' * 1000).expandtabs(10**9) }}", ""},
		{"limit", "{{ 'a'.center(10**12) }}", ""},
		{"limit", "{{ 'a'.zfill(10**12) }}", ""},
		{"limit", "{{ [1]|slice(10**12)|list }}", ""},
		{"limit", "{{ [1]|batch(10**12, 0)|list }}", ""},
		{"limit", "{{ ([[1] * 1000] * 100000)|sum(start=[]) }}", ""},
		{"limit", "{% for i in range(100000) %}" + times(1000, "x") + "{% endfor %}", ""},
		{"limit", "{% macro f() %}" + times(10000, "x") + "{% endmacro %}" + forever("{% set x = f() %}"), ""},
		{"limit", keep("'a' * 100000"), ""},
		{"limit", keep("[0] * 10000"), ""},
		{"limit", keep("{'a': 1}"), ""},
		{"limit", keep("namespace(a=1)"), ""},
		{"limit", keep("'abc'.upper"), ""},
		{"limit", keep("'abc'|list"), ""},
		{"limit", "{% set ns = namespace(x=[1]) %}" + forever("{% set ns.x = ns.x|map('abs') %}"), ""},
	},
	"generators": { // that read one another
		{"limit: nesting of values", "{% set ns = namespace(x=[1]) %}{% for i in range(100000) %}{% set ns.x = ns.x|map('list') %}{% endfor %}{{ ns.x|first }}", ""},
		{"limit: nesting of values", "{% set ns = namespace(x=[1]) %}{% for i in range(100000) %}{% set ns.x = ns.x|select %}{% endfor %}{{ ns.x|first }}", ""},
		{"limit: nesting of values", "{% set ns = namespace(x=[1]) %}{% for i in range(100000) %}{% set ns.x = ns.x|unique %}{% endfor %}{{ ns.x|list }}", ""},
		{"limit: nesting of values", "{% set ns = namespace(x=[1]) %}{% for i in range(100000) %}{% set ns.x = ns.x|batch(1) %}{% endfor %}{{ ns.x|list }}", ""},
		{"limit: nesting of values", "{% set ns = namespace(x=[1]) %}{% for i in range(100000) %}{% set ns.x = ns.x|slice(1) %}{% endfor %}{{ ns.x|list }}", ""},
	},
	"formats": {
		{"limit", "{{ '%1000000000d'|format(1) }}", ""},
		{"limit", "{{ '%*d' % (10**30, 1) }}", ""},
		{"limit", "{{ '%.1000000000f'|format(1) }}", ""},
		{"limit", "{{ '%.1000000000d' % 1 }}", ""},
		{"limit", "{{ '%.1000000000e' % 1 }}", ""},
		{"limit", "{{ '{:1000000000}'.format(1) }}", ""},
		{"limit", "{{ '{:99999999999999999999}'.format('a') }}", ""},
		{"limit", forever("{% set x = '%.100000f' % 0.1 %}"), ""},
		{"", "{{ '{:,.100000f}'.format(1e300) }}", ""},
		{"KeyError", "{{ '{99999999999999999999}'.format(1) }}", ""},
		{"limit", "{{ [[1]]|tojson(indent=10**9) }}", ""},
		{"limit", "{{ ([1] * 10000)|tojson(separators=('a' * 100000, ':')) }}", ""},
	},
	"integers": {
		{"limit", "{% set ns = namespace(x=2) %}" + forever("{% set ns.x = ns.x * ns.x %}"), ""},
		{"limit", "{{ 2 ** (10**9) }}", ""},
		{"limit", "{{ 2 ** (10**30) }}", ""},
		{"", "{{ 1 ** 10**30 }}{{ (-1) ** (10**30+1) }}{{ 0 ** (10**30) }}", ""},
		{"limit", forever("{% set x = 3 ** 10000 %}"), ""},
		{"limit", "{% set x = 3 ** 5000 %}" + forever("{% set y = x * x // x %}"), ""},
		{"limit", "{% set x = 3 ** 5000 %}" + forever("{% set y = x ~ x %}{% set z = '%x' % x %}"), ""},
		{"limit", "{% set x = 3 ** 5000 %}" + forever("{% set y = x < x + 1 %}{% set z = {x: 1.5 < x} %}{% set w = x|round(-5) %}"), ""},
		{"limit", "{% set s = '9' * 5000 %}" + forever("{% set x = s|int %}{% set x = s|float %}"), ""},
		{"limit", "{{ " + times(1000000, "9") + " }}", ""},
		{"limit", "{{ 0x" + times(1000000, "f") + " }}", ""},
		{"limit", "{{ 1." + times(1000000, "9") + " }}", ""},
		{"limit", "{{ a }}", `{"a":` + times(1000000, "9") + `}`},
		{"", "{{ 'abc'[-10**30:10**30:10**30] }}{{ [1, 2][::-10**30] }}{{ range(9)[::10**18]|list }}", ""},
	},
	"work": { // that one step must not do for nothing
		{"limit", "{% set s = 'a' * 1000000 %}{{ s.strip('b' * 1000000 + 'a') }}", ""},
		{"limit", "{% set s = 'a' * 1000000 %}" + forever("{% if 'b' in s %}{% endif %}"), ""},
		{"limit", "{% set l = [1] * 10000 %}" + forever("{% if 'b' in l %}{% endif %}"), ""},
		{"limit", "{% set s = 'a' * 1000000 %}{% set t = 'a' * 1000000 %}" + forever("{% if s == t %}{% endif %}"), ""},
		{"limit", "{% set s = 'é' * 500000 %}" + forever("{% set x = s[i] %}"), ""},
		{"limit", "{% set s = 'é' * 500000 %}" + forever("{% set x = s[1:] %}"), ""},
		{"limit", "{% set s = 'é' * 500000 %}" + forever("{% set x = s|length %}"), ""},
		{"limit", "{% set s = 'a' * 1000000 %}{% set d = {s: 1} %}" + forever("{% set x = d[s] %}"), ""},
		{"limit", "{% set s = 'a' * 1000000 %}{% set t = 'a' * 500000 + 'b' %}" + forever("{% set x = s.find(t) %}{% set x = s.rfind(t) %}"), ""},
		{"limit", "{% set s = 'a' * 1000000 %}" + forever("{% set x = s.partition('b') %}"), ""},
		{"limit", "{% set s = 'a ' * 100000 %}" + forever("{% set x = s|title %}"), ""},
		{"limit", "{% set s = 'a ' * 100000 %}" + forever("{% set x = s|truncate(100000) %}"), ""},
		{"limit", "{% set x = ['é' * 100000] %}" + forever("{% set y = x|tojson(ensure_ascii=true) %}"), ""},
		{"limit", "{% set l = range(100000)|list %}" + forever("{% set x = l|sort(reverse=true) %}"), ""},
		{"limit", "{{ ([[1] * 10000] * 1000)|sort }}", ""},
		{"limit", "{% set l = [{'a': 'x' * 10000}] * 1000 %}" + forever("{% set x = l|groupby('a') %}"), ""},
		{"limit", "{% set t = ('a' * 10000,) %}" + forever("{% set x = {t: 1} %}"), ""},
		{"limit", forever("{% set x = []|map(attribute='" + times(10000, "a.") + "a') %}"), ""},
		{"limit", forever("{% set x = d.copy() %}{% set y = d.items()|list %}{% set z = d|dictsort %}"), `{"d":{` + manyKeys(10000) + `}}`},
		{"limit", "{% macro f() %}{% endmacro %}{% for i in range(1000) %}{{ f(**d) if loop.last else dict(**d) }}{% endfor %}", `{"d":{` + manyKeys(10000) + `}}`},
		{"limit", "{{ '" + times(100000, "{a}") + "'.format(**d) }}", `{"d":{` + manyKeys(10000) + `,"a":1}}`},
	},
	"values": { // that hold themselves, or one value often, or go deep
		{"limit", "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}", ""},
		{"limit", "{% set ns = namespace() %}{% set ns.x = [ns, ns] %}{{ ns.x }}", ""},
		{"TypeError", "{% set ns = namespace() %}{% set ns.x = {'a': ns} %}{{ ns.x|tojson }}", ""},
		{"", "{% set ns = namespace() %}{% set ns.x = [ns] %}{% set m = namespace() %}{% set m.x = [m] %}{{ ns.x == m.x }}", ""},
		{"limit: fuel", doubled("[ns.x, ns.x]") + "{{ ns.x }}", ""},
		{"limit: fuel", doubled("[ns.x, ns.x]") + "{{ ns.x|tojson }}", ""},
		{"limit: fuel", doubled("[ns.x, ns.x]") + "{{ ns.x == ns.y }}", ""},
		{"limit: fuel", doubled("[ns.x, ns.x]") + "{{ ns.x < ns.y }}", ""},
		{"limit: fuel", doubled("{'a': ns.x, 'b': ns.x}") + "{{ ns.x == ns.y }}", ""},
		{"limit: size of a key", doubled("(ns.x, ns.x)") + "{{ {ns.x: 1} }}", ""},
		{"limit: nesting of values", deep + "{{ ns.x }}", ""},
		{"limit: nesting of values", deep + "{{ ns.x|tojson }}", ""},
		{"limit: nesting of values", deep + "{{ ns.x == ns.y }}", ""},
		{"limit: nesting of values", deep + "{{ ns.x < ns.y }}", ""},
		{"limit: size of a key", strings.NewReplacer("[ns.x]", "(ns.x,)").Replace(deep) + "{{ {ns.x: 1} }}", ""},
		{"limit", "{{ a }}", `{"a":` + times(100000, "[") + times(100000, "]") + `}`},
		{"limit", "{{ a }}", `{"a":` + times(100000, `{"a":`)},
	},
	"source": {
		{"limit", "{{ " + times(100000, "(") + "1" + times(100000, ")") + " }}", ""},
		{"limit", "{{ " + times(100000, "[") + times(100000, "]") + " }}", ""},
		{"limit", "{{ " + times(100000, "{1:") + "1" + times(100000, "}") + " }}", ""},
		{"limit", "{{ " + times(100000, "not ") + "1 }}", ""},
		{"limit", "{{ " + times(100000, "-") + "1 }}", ""},
		{"limit", "{{ 1" + times(100000, "+1") + " }}", ""},
		{"limit", "{{ 1" + times(100000, "**1") + " }}", ""},
		{"limit", "{{ 1" + times(100000, " and 1") + " }}", ""},
		{"limit", "{{ 0" + times(100000, " or 0") + " }}", ""},
		{"", "{{ 1" + times(100000, "~1") + " }}", ""},
		{"", "{{ 1" + times(100000, "<1") + " }}", ""},
		{"", "{{ " + times(200000, "'a' ") + " }}", ""},
		{"limit", "{{ a" + times(100000, ".a") + " }}", ""},
		{"limit", "{{ a" + times(100000, "[a") + times(100000, "]") + " }}", ""},
		{"limit", "{{ a" + times(100000, "()") + " }}", ""},
		{"limit", "{{ a" + times(100000, "(a") + times(100000, ")") + " }}", ""},
		{"limit", "{{ a" + times(100000, "|e") + " }}", ""},
		{"limit", "{{ a" + times(100000, "|e(a") + times(100000, ")") + " }}", ""},
		{"limit", "{{ a" + times(100000, " is in a") + " }}", ""},
		{"limit", "{{ 1" + times(50000, " if 1 else 1") + " }}", ""},
		{"limit", "{{ 1" + times(100000, " if 1") + " }}", ""},
		{"limit", times(30000, "{% if 1 %}") + times(30000, "{% endif %}"), ""},
		{"limit", times(30000, "{% for x in y %}") + times(30000, "{% endfor %}"), ""},
		{"limit", times(30000, "{% macro f() %}") + times(30000, "{% endmacro %}"), ""},
		{"", "{% if 0 %}" + times(50000, "{% elif 0 %}") + "{% endif %}", ""},
		{"limit", "{% set " + times(100000, "(") + "a" + times(100000, ")") + " = 1 %}", ""},
		{"limit", times(1<<20+1, "x"), ""},
		{"TemplateSyntaxError", times(1000000, "{"), ""},
		{"TemplateSyntaxError", times(500000, "{%"), ""},
		{"TemplateSyntaxError", times(500000, "{#"), ""},
		{"TemplateSyntaxError", times(200000, "{{ a "), ""},
		{"TemplateSyntaxError", times(100000, "{% raw %}"), ""},
		{"TemplateSyntaxError", "{{ '" + times(400000, "\\\\"), ""},
		{"TemplateSyntaxError", times(1000000, " ") + "{%- if 1 %}", ""},
	},
	"escapes": {
		{"SecurityError", "{{ ''.__class__.__mro__[1].__subclasses__() }}", ""},
		{"SecurityError", "{{ ''|attr('__class__')|attr('__mro__') }}", ""},
		{"SecurityError", "{{ ['']|map(attribute='__class__.__mro__')|list }}", ""},
		{"SecurityError", "{{ '{0.__class__.__mro__}'.format('') }}", ""},
		{"SecurityError", "{{ range.__globals__.x }}", ""},
		{"SecurityError", "{{ cycler.__init__.__globals__.os }}", ""},
		{"SecurityError", "{{ [1].append(2) }}", ""},
		{"SecurityError", "{{ {}.update(a=1) }}", ""},
		{"TemplateSyntaxError", "{% include '/etc/hostname' %}", ""},
		{"TemplateSyntaxError", "{% import '/etc/hostname' as x %}", ""},
		{"TemplateSyntaxError", "{% from '/etc/hostname' import x %}", ""},
		{"TemplateSyntaxError", "{% extends '/etc/hostname' %}", ""},
	},
}

func TestHostile(t *testing.T) {
	defer debug.SetMaxStack(debug.SetMaxStack(128 << 20)) // a deeper stack ends the process
	limits := jinja.Limits{Steps: 500_000, Output: 4 << 20}
	for group, entries := range hostiles {
		for i, h := range entries {
			t.Run(fmt.Sprintf("%s/%02d", group, i), func(t *testing.T) { h.check(t, limits) })
		}
	}
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	if memory.HeapSys > 1<<30 {
		t.Errorf("the heap grew to %d MiB", memory.HeapSys>>20)
	}
}

func (h *hostile) check(t *testing.T, limits jinja.Limits) {
	start := time.Now()
	template, err := jinja.Compile(h.source, jinja.Options{Limits: limits})
	if err == nil {
		context := h.context
		if context == "" {
			context = "{}"
		}
		_, err = template.Render([]byte(context))
	}
	if took := time.Since(start); took > 5*time.Minute { // a third of a second at most on an idle machine; unbounded it would be hours
		t.Errorf("took %v", took)
	}
	var failed *jinja.Error
	kind := ""
	if errors.As(err, &failed) {
		kind = failed.Kind
		name, ok := failed.Limit()
		if ok != (kind == "limit") || ok && name == "" {
			t.Errorf("Limit() of %v: %q %v", err, name, ok)
		}
		if strings.Contains(h.kind, ": ") {
			kind += ": " + name
		}
	}
	if kind != h.kind {
		t.Errorf("%.200s\nkind %q, want %q (error %v)", h.source, kind, h.kind, err)
	}
}
