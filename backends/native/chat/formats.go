package chat

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// thinkFormat is how a family marks thoughts, which come at the beginning of an answer.
type thinkFormat struct {
	open, close []string
	harmony     bool // channels instead: see harmony.go
}

// thinkFormats are the families by vLLM's names of their parsers.
var thinkFormats = map[string]thinkFormat{
	"seed_oss":    {open: []string{"<seed:think>"}, close: []string{"</seed:think>"}},
	"qwen3":       {open: []string{openThink}, close: []string{closeThink}},
	"deepseek_r1": {open: []string{openThink}, close: []string{closeThink}},
	"glm45":       {open: []string{openThink}, close: []string{closeThink}},
	"mistral":     {open: []string{"[THINK]"}, close: []string{"[/THINK]"}},
	"granite": {open: []string{"Here is my thought process:", "Here's my thought process:"},
		close: []string{"Here is my response:", "Here's my response:"}},
	"openai_gptoss": {harmony: true},
	"gpt_oss":       {harmony: true},
}

// toolFormat is how a family writes tool calls.
type toolFormat struct {
	open  []string // marks that begin a call, or several
	after []string // marks that may follow a call, in this order, each once
	end   string   // ends a call that is malformed; "": nothing does

	bodies  body
	bare    bool                // a call may also begin an answer, or follow another call, without a mark
	args    []string            // keys of the arguments
	header  func(string) string // headerBody: the name that stands in the text before the arguments, "" if none does
	xml     *xmlFormat
	shortID bool // ids of nine letters and digits, which the family's templates insist on
	harmony bool // channels instead: see harmony.go
}

// body are the forms that a call may have after its mark.
type body int

const (
	objectBody body = 1 << iota // a JSON object with name and arguments
	listBody                    // a JSON list of them
	headerBody                  // a name in some wording, then the arguments as a JSON object
	xmlBody
	pythonBody // a list of calls in Python's syntax
)

// xmlFormat are the marks of a call whose arguments stand one by one between tags.
type xmlFormat struct {
	name                 string // before the name
	nameEnd              []string
	key, keyEnd          string
	value, valueEnd, end string
	trim                 bool // a value's line feeds next to its tags are not part of it
}

var (
	hermesKeys = []string{"arguments"}
	anyKeys    = []string{"arguments", "parameters"}
)

// toolFormats are the families by vLLM's names of their parsers, glm4 by LlamaFactory's.
var toolFormats = map[string]toolFormat{
	"hermes":          {open: []string{openCall}, after: []string{closeCall}, end: closeCall, bodies: objectBody, args: hermesKeys},
	"llama3_json":     {open: []string{"<|python_tag|>"}, after: []string{";"}, bodies: objectBody, bare: true, args: anyKeys},
	"mistral":         {open: []string{"[TOOL_CALLS]"}, bodies: objectBody | listBody | headerBody, args: hermesKeys, header: mistralName, shortID: true},
	"deepseek_v3":     deepseek,
	"deepseek_v31":    deepseek,
	"glm4":            {bodies: headerBody, bare: true, header: lineName},
	"glm45":           {open: []string{openCall}, after: []string{closeCall}, end: closeCall, bodies: xmlBody, xml: glmXML},
	"glm47":           {open: []string{openCall}, after: []string{closeCall}, end: closeCall, bodies: xmlBody, xml: glmXML},
	"qwen3_coder":     {open: []string{openCall}, after: []string{closeCall}, end: closeCall, bodies: xmlBody, xml: qwenXML},
	"qwen3_xml":       {open: []string{openCall}, after: []string{closeCall}, end: closeCall, bodies: xmlBody, xml: qwenXML},
	"granite":         {open: []string{"<|tool_call|>", openCall}, after: []string{closeCall}, bodies: objectBody | listBody, args: hermesKeys},
	"phi4_mini_json":  {open: []string{"<|tool_call|>", "functools"}, after: []string{"<|/tool_call|>"}, bodies: objectBody | listBody, args: anyKeys},
	"pythonic":        {bodies: pythonBody, bare: true},
	"llama4_pythonic": {open: []string{"<|python_start|>"}, after: []string{"<|python_end|>"}, bodies: pythonBody, bare: true},
	"lfm2":            {open: []string{"<|tool_call_start|>"}, after: []string{"<|tool_call_end|>"}, bodies: pythonBody},
	"seed_oss": {open: []string{"<seed:tool_call>"}, after: []string{"</seed:tool_call>"}, end: "</seed:tool_call>",
		bodies: xmlBody, xml: qwenXML},
	"minimax_m2": {open: []string{"<minimax:tool_call>\n" + invoke, "<minimax:tool_call>" + invoke, invoke},
		after: []string{"</minimax:tool_call>"}, end: "</minimax:tool_call>", bodies: xmlBody, xml: invokeXML},
	"openai": {harmony: true},
}

var deepseek = toolFormat{
	open:   []string{"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>", "<｜tool▁call▁begin｜>"},
	after:  []string{"```", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"},
	end:    "<｜tool▁call▁end｜>",
	bodies: headerBody, header: deepseekName,
}

var glmXML = &xmlFormat{nameEnd: []string{"\n", "<arg_key>", closeCall}, key: "<arg_key>", keyEnd: "</arg_key>",
	value: "<arg_value>", valueEnd: "</arg_value>", end: closeCall}

var qwenXML = &xmlFormat{name: "<function=", nameEnd: []string{">"}, key: "<parameter=", keyEnd: ">", valueEnd: "</parameter>",
	end: "</function>", trim: true}

const invoke = `<invoke name="`

var invokeXML = &xmlFormat{nameEnd: []string{`">`}, key: `<parameter name="`, keyEnd: `">`, valueEnd: "</parameter>", end: "</invoke>",
	trim: true}

// ToolFormats and ReasoningFormats are the names that ParserConfig takes.
func ToolFormats() []string      { return slices.Sorted(maps.Keys(toolFormats)) }
func ReasoningFormats() []string { return slices.Sorted(maps.Keys(thinkFormats)) }

// Marks returns the marks of a pair of formats: text must reach the Parser with them, though they may be control tokens.
func Marks(reasoning, tools string) []string {
	think, tool := thinkFormats[reasoning], toolFormats[tools]
	marks := slices.Concat(think.open, think.close, tool.open, tool.after)
	if tools == "mistral" {
		marks = append(marks, "[ARGS]", "[CALL_ID]")
	}
	if tool.bodies&headerBody != 0 && tools != "mistral" {
		marks = append(marks, sepDeepseek)
	}
	if x := tool.xml; x != nil {
		marks = append(marks, x.key, x.keyEnd, x.value, x.valueEnd, x.end)
	}
	if think.harmony || tool.harmony {
		marks = append(marks, harmonyMarks...)
	}
	return slices.DeleteFunc(marks, func(m string) bool { return m == "" })
}

// mistralName reads name[ARGS] or name[CALL_ID]id[ARGS], of which the marks may be missing.
func mistralName(header string) string {
	header, _, _ = strings.Cut(header, "[ARGS]")
	name, _, _ := strings.Cut(header, "[CALL_ID]")
	return functionName(name)
}

const sepDeepseek = "<｜tool▁sep｜>"

// deepseekName reads type<sep>name and a line that opens a block of JSON (V3), or name<sep> (V3.1).
func deepseekName(header string) string {
	before, after, _ := strings.Cut(header, sepDeepseek)
	if name, ok := strings.CutSuffix(strings.TrimRight(after, " \n"), "```json"); ok {
		return functionName(name)
	}
	if strings.TrimSpace(after) != "" {
		return ""
	}
	return functionName(before)
}

// lineName reads a name that is a line of its own.
func lineName(header string) string {
	name, ok := strings.CutSuffix(header, "\n")
	if !ok {
		return ""
	}
	return functionName(name)
}

// functionName returns s without white space around it if it can be the name of a function, else "".
func functionName(s string) string {
	s = strings.TrimSpace(s)
	for _, c := range s {
		if c <= ' ' || strings.ContainsRune("<>{}[]()\"'`,;", c) {
			return ""
		}
	}
	return s
}

// tools are what is known of the request's tools: for each name its parameters' types, as JSON Schema writes them.
type tools map[string]map[string]json.RawMessage

func readTools(list []json.RawMessage) tools {
	t := tools{}
	for _, data := range list {
		var tool struct {
			Function struct {
				Name       string
				Parameters struct {
					Properties map[string]struct{ Type json.RawMessage }
				}
			}
		}
		if json.Unmarshal(data, &tool) != nil && tool.Function.Name == "" {
			continue // the server has checked what must be there
		}
		types := map[string]json.RawMessage{}
		for key, p := range tool.Function.Parameters.Properties {
			types[key] = p.Type
		}
		t[tool.Function.Name] = types
	}
	return t
}

// value returns the JSON of an argument that is written as plain text: a string if the schema says so or if it is no
// JSON, which Python's words for constants count as.
func (t tools) value(function, key, text string) string {
	if string(t[function][key]) != `"string"` {
		plain := strings.TrimSpace(text)
		switch plain {
		case "True", "False":
			return strings.ToLower(plain)
		case "None":
			return "null"
		}
		if json.Valid([]byte(plain)) {
			return plain
		}
	}
	return quote(text)
}

func quote(text string) string {
	data, _ := marshal(text) // a string always marshals
	return string(data)
}

// DetectFormats tells from a chat template which formats the model was taught, by their names; "" is none.
func DetectFormats(source string) (reasoning, tools string) {
	has := func(s string) bool { return strings.Contains(source, s) }
	switch {
	case has("<|channel|>"):
		return "openai_gptoss", "openai"
	case has("[THINK]"):
		reasoning = "mistral"
	case has("Here is my thought process:"):
		reasoning = "granite"
	case has("</seed:think>"):
		reasoning = "seed_oss"
	case has(closeThink) && has("<｜"):
		reasoning = "deepseek_r1"
	case has(closeThink) && has("<arg_key>"):
		reasoning = "glm45"
	case has(closeThink):
		reasoning = "qwen3"
	}
	switch {
	case has("[TOOL_CALLS]"):
		tools = "mistral"
	case has("<｜tool▁call▁begin｜>") && has("```json"):
		tools = "deepseek_v3"
	case has("<｜tool▁call▁begin｜>"):
		tools = "deepseek_v31"
	case has(openCall) && has("<arg_key>"):
		tools = "glm45"
	case has(openCall) && has("<function="):
		tools = "qwen3_coder"
	case has("<|tool_call|>") && has("<|start_of_role|>"):
		tools = "granite"
	case has("<|tool_call|>"):
		tools = "phi4_mini_json"
	case has(openCall) && has("arguments"):
		tools = "hermes"
	case has("<|python_tag|>"), has("<|start_header_id|>") && has(`"parameters"`), has("<|header_start|>") && has(`"parameters"`):
		tools = "llama3_json"
	case has("<|tool_call_start|>"):
		tools = "lfm2"
	case has("<seed:tool_call>"):
		tools = "seed_oss"
	case has("<minimax:tool_call>"):
		tools = "minimax_m2"
	case has("<|header_start|>") && has("func_name1("):
		tools = "llama4_pythonic"
	case has("<|observation|>"):
		tools = "glm4"
	}
	return reasoning, tools
}
