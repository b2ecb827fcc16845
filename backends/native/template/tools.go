package template

import (
	"maps"
	"slices"
	"strings"

	"pagoda/backends/native/jinja"
)

// toolFormat is how tools are told to the model and how its calls are written, as Jinja: tools are the request's, each with
// its function; calls have a name and arguments.
type toolFormat struct {
	tools, calls string
	// parser is the format of calls in answers, by the name that the option tool_call_parser has for it; "" if there is none.
	parser string
}

// toolFormats by name. Each text was taught to models and must stay as it is, to the byte.
var toolFormats = map[string]toolFormat{
	"default": {
		tools: `You have access to the following tools:
{% for tool in tools %}{% set f = tool.function %}> Tool Name: {{ f.name }}
Tool Description: {{ f.description or '' }}
Tool Args:
{% for name, p in (f.parameters.properties or {}).items() %}` +
			`{{ '  - ' }}{{ name }} ({{ p.type or '' }}{{ ', required' if name in (f.parameters.required or []) }}): ` +
			`{{ p.description or '' }}{% if p.enum %}, should be one of [{{ p.enum | join(', ') }}]{% endif %}` +
			`{% if p.get('items') %}, where each item should be {{ p.get('items').type or '' }}{% endif %}{{ '\n' }}{% endfor %}
{% endfor %}Use the following format if using a tool:
` + "```" + `
Action: tool name (one of [{{ tools | map(attribute='function.name') | join(', ') }}])
Action Input: the input to the tool, in a JSON format representing the kwargs (e.g. ` + "```" +
			`{"input": "hello world", "num_beams": 5}` + "```)\n```\n{{ '' }}",
		calls: `{% for c in calls %}{{ '\n' if not loop.first }}Action: {{ c.name }}
Action Input: {{ c.arguments | tojson }}{% endfor %}`,
	},
	"glm4": {
		tools: `你是一个名为 ChatGLM 的人工智能助手。你是基于智谱 AI 公司训练的语言模型 GLM-4 模型开发的，你的任务是针对用户的问题和要求提供适当的答复和支持。

# 可用工具{% for tool in tools %}

## {{ tool.function.name }}

{{ tool.function | tojson(indent=4) }}
在调用上述函数时，请使用 Json 格式表示调用的参数。{% endfor %}`,
		calls: `{% if calls | length > 1 %}{{ raise_exception('this tool format has one call a turn') }}{% endif %}` +
			`{{ calls[0].name }}
{{ calls[0].arguments | tojson }}`,
		parser: "glm4",
	},
	"glm4_moe": {
		tools: `

# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>{% for tool in tools %}{{ '\n' }}{{ tool | tojson }}{% endfor %}
</tools>

For each function call, output the function name and arguments within the following XML format:
<tool_call>{function-name}
<arg_key>{arg-key-1}</arg_key>
<arg_value>{arg-value-1}</arg_value>
<arg_key>{arg-key-2}</arg_key>
<arg_value>{arg-value-2}</arg_value>
...
</tool_call>{{ '\n' }}`,
		calls: `{% for c in calls %}{{ '\n' if not loop.first }}
<tool_call>{{ c.name }}{% for k, v in c.arguments.items() %}
<arg_key>{{ k }}</arg_key>
<arg_value>{{ v if v is string else v | tojson }}</arg_value>{% endfor %}{% endfor %}`,
		parser: "glm45",
	},
	"llama3": {
		tools: `Cutting Knowledge Date: December 2023
Today Date: {{ strftime_now('%d %b %Y') }}

You have access to the following functions. To call a function, please respond with JSON for a function call. ` +
			`Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}. ` +
			`Do not use variables.

{% for tool in tools %}{{ tool | tojson(indent=4) }}{{ '\n\n' }}{% endfor %}`,
		calls: `{% set list = namespace(all=[]) %}{% for c in calls %}` +
			`{% set list.all = list.all + [{'name': c.name, 'parameters': c.arguments}] %}{% endfor %}` +
			`{{ (list.all[0] if list.all | length == 1 else list.all) | tojson }}`,
		parser: "llama3_json",
	},
	"mistral": {
		tools: `[AVAILABLE_TOOLS] {{ tools | tojson }}[/AVAILABLE_TOOLS]`,
		calls: `[{% for c in calls %}{{ ', ' if not loop.first }}` +
			`{{ {'name': c.name, 'arguments': c.arguments} | tojson }}{% endfor %}]`,
		parser: "mistral",
	},
	"minimax1": {
		tools: `You are provided with these tools:
<tools>
{% for tool in tools %}{{ tool.function | tojson }}{{ '\n' }}{% endfor %}</tools>

If you need to call tools, please respond with <tool_calls></tool_calls> XML tags, and provide tool-name and ` +
			`json-object of arguments, following the format below:
<tool_calls>
{"name": <tool-name-1>, "arguments": <args-json-object-1>}
...
</tool_calls>`,
		calls: `<tool_calls>{% for c in calls %}
{{ {'name': c.name, 'arguments': c.arguments} | tojson }}{% endfor %}
</tool_calls>`,
		parser: "minimax",
	},
	"minimax2": {
		tools: `

# Tools

You may call one or more tools to assist with the user query.
Here are the tools available in JSONSchema format:

<tools>
{% for tool in tools %}<tool>{{ tool.function | tojson }}</tool>{{ '\n' }}{% endfor %}</tools>

When making tool calls, use XML format to invoke tools and pass parameters:

<minimax:tool_call>
<invoke name="tool-name-1">
<parameter name="param-key-1">param-value-1</parameter>
<parameter name="param-key-2">param-value-2</parameter>
...
</invoke>
</minimax:tool_call>`,
		calls: `{% for c in calls %}{{ '\n' if not loop.first }}<invoke name="{{ c.name }}">{% for k, v in c.arguments.items() %}
<parameter name="{{ k }}">{{ v if v is string else v | tojson }}</parameter>{% endfor %}
</invoke>{% endfor %}`,
		parser: "minimax_m2",
	},
	"qwen": {
		tools:  hermesTools,
		calls:  hermesCalls,
		parser: "hermes",
	},
	"ling": {
		tools:  `{{ '' }}` + hermesTools[2:] + "\ndetailed thinking off",
		calls:  hermesCalls,
		parser: "hermes",
	},
	"seed_oss": {
		tools: `system
You are Doubao, a helpful AI assistant. You may call one or more functions to assist with the user query.` +
			`Tool List:
You are authorized to use the following tools (described in JSON Schema format). Before performing any task, you must ` +
			`decide how to call them based on the descriptions and parameters of these tools.
{{ tools | map(attribute='function') | list | tojson }}
工具调用请遵循如下格式:
<seed:tool_call>
<function=example_function_name>
<parameter=example_parameter_1>value_1</parameter>
<parameter=example_parameter_2>This is the value for the second parameter
that can span
multiple lines</parameter>
</function>
</seed:tool_call>{{ '\n' }}`,
		calls: `{% for c in calls %}{{ '\n' if not loop.first }}
<seed:tool_call>
<function={{ c.name }}{% for k, v in c.arguments.items() %}
<parameter={{ k }}>{{ v if v is string else v | tojson }}</parameter>{% endfor %}
</function>
</seed:tool_call>{% endfor %}`,
		parser: "seed_oss",
	},
	"qwen3_5": {
		tools: `

# Tools

You have access to the following functions:

<tools>{% for tool in tools %}{{ '\n' }}{{ tool.function | tojson }}{% endfor %}
</tools>

If you choose to call a function ONLY reply in the following format with NO suffix:

<tool_call>
<function=example_function_name>
<parameter=example_parameter_1>
value_1
</parameter>
<parameter=example_parameter_2>
This is the value for the second parameter
that can span
multiple lines
</parameter>
</function>
</tool_call>

<IMPORTANT>
Reminder:
- Function calls MUST follow the specified format: an inner <function=...></function> block must be nested within ` +
			`<tool_call></tool_call> XML tags
- Required parameters MUST be specified
- You may provide optional reasoning for your function call in natural language BEFORE the function call, but NOT after
- If there is no function call available, answer the question like normal with your current knowledge and do not tell the ` +
			`user about function calls
</IMPORTANT>`,
		calls: `{% for c in calls %}{{ '\n' if not loop.first }}<tool_call>
<function={{ c.name }}>{% for k, v in c.arguments.items() %}
<parameter={{ k }}>
{{ v if v is string else v | tojson }}
</parameter>{% endfor %}
</function>
</tool_call>{% endfor %}`,
		parser: "qwen3_coder",
	},
	"gemma4": {
		tools: `{% macro text(s) %}<|"|>{{ s }}<|"|>{% endmacro %}` +
			`{% macro list(parts) %}{{ '{' }}{{ parts | join(',') }}{{ '}' }}{% endmacro %}` +
			`{% for tool in tools %}{{ '\n' if not loop.first }}{% set f = tool.function %}{% set n = namespace(all=[]) %}` +
			`{% set n.all = ['description:' ~ text(f.description or '')] %}` +
			`{% if f.parameters %}{% set p = f.parameters %}{% set m = namespace(all=[], names=[]) %}` +
			`{% for name, s in (p.properties or {}).items() %}{% set q = namespace(all=[]) %}` +
			`{% if s.description %}{% set q.all = q.all + ['description:' ~ text(s.description)] %}{% endif %}` +
			`{% if s.type %}{% set q.all = q.all + ['type:' ~ text(s.type | string | upper)] %}{% endif %}` +
			`{% set m.names = m.names + [name ~ ':' ~ list(q.all)] %}{% endfor %}` +
			`{% if p.properties %}{% set m.all = m.all + ['properties:' ~ list(m.names)] %}{% endif %}` +
			`{% if p.required %}{% set q = namespace(all=[]) %}` +
			`{% for r in p.required %}{% set q.all = q.all + [text(r)] %}{% endfor %}` +
			`{% set m.all = m.all + ['required:[' ~ (q.all | join(',')) ~ ']'] %}{% endif %}` +
			`{% if p.type %}{% set m.all = m.all + ['type:' ~ text(p.type | string | upper)] %}{% endif %}` +
			`{% set n.all = n.all + ['parameters:' ~ list(m.all)] %}{% endif %}` +
			`{% if f.response %}{% set q = namespace(all=[]) %}` +
			`{% if f.response.description %}{% set q.all = q.all + ['description:' ~ text(f.response.description)] %}{% endif %}` +
			`{% if (f.response.type or '') | upper == 'OBJECT' %}{% set q.all = q.all + ['type:' ~ text('OBJECT')] %}{% endif %}` +
			`{% set n.all = n.all + ['response:' ~ list(q.all)] %}{% endif %}declaration:{{ f.name }}{{ list(n.all) }}{% endfor %}`,
		calls: `{% macro write(v) %}{% if v is string %}<|"|>{{ v }}<|"|>` +
			`{% elif v is mapping %}{{ '{' }}` +
			`{% for k, w in v | dictsort(case_sensitive=true) %}{{ ',' if not loop.first }}{{ k }}:{{ write(w) }}{% endfor %}{{ '}' }}` +
			`{% elif v is sequence %}[{% for w in v %}{{ ',' if not loop.first }}{{ write(w) }}{% endfor %}]` +
			`{% else %}{{ v | tojson }}{% endif %}{% endmacro %}` +
			`{% for c in calls %}<|tool_call>call:{{ c.name }}{{ write(c.arguments) }}<tool_call|>{% endfor %}`,
		parser: "gemma4",
	},
	"lfm2": {
		tools: `List of tools: <|tool_list_start|>[{% for tool in tools %}{{ ', ' if not loop.first }}` +
			`{{ tool.function | tojson }}{% endfor %}]<|tool_list_end|>`,
		calls: `<|tool_call_start|>[{% for c in calls %}{{ ', ' if not loop.first }}{{ c.name }}(` +
			`{% for k, v in c.arguments.items() %}{{ ', ' if not loop.first }}{{ k }}=` +
			`{% if v is string %}"{{ v }}"{% else %}{{ v | tojson }}{% endif %}{% endfor %}){% endfor %}]<|tool_call_end|>`,
		parser: "lfm2",
	},
	"phi4_mini": { // a slot of the template phi4_mini only: the tools as the client wrote them
		tools: `<|tool|>{{ tools | map(attribute='function') | list | tojson }}<|/tool|>`,
		calls: `{% for c in calls %}{{ '\n' if not loop.first }}Action: {{ c.name }}
Action Input: {{ c.arguments | tojson }}{% endfor %}`,
	},
}

const (
	hermesTools = `

# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>{% for tool in tools %}{{ '\n' }}{{ tool | tojson }}{% endfor %}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>`
	hermesCalls = `{% for c in calls %}{{ '\n' if not loop.first }}<tool_call>
{{ {'name': c.name, 'arguments': c.arguments} | tojson }}
</tool_call>{% endfor %}`
)

// ToolFormats lists the tool formats in order.
func ToolFormats() []string { return slices.Sorted(maps.Keys(toolFormats)) }

// tools is a compiled toolFormat.
type tools struct {
	tools, calls *jinja.Template
	parser       string
}

func findTools(name string, o jinja.Options) (*tools, error) {
	f, ok := toolFormats[name]
	if !ok {
		return nil, &UnknownError{"tool format", name, nearest(name, ToolFormats())}
	}
	// Jinja drops the line break after a block, here the texts are as written.
	compile := func(source string) (*jinja.Template, error) {
		return jinja.Compile(strings.ReplaceAll(source, "%}\n", "%}\n\n"), o)
	}
	list, err := compile(f.tools)
	if err != nil {
		return nil, err
	}
	calls, err := compile(f.calls)
	return &tools{list, calls, f.parser}, err
}
