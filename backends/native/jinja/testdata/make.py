"""Renders every case with Python's Jinja2 as transformers sets it up and writes the expected outputs.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install jinja2==3.1.6 && /tmp/venv/bin/python make.py

Writes micro.json and families.json beside this file. A case has a name, the template (or, for the
families, its file), the context and either "want" or "error"; "message" is raise_exception's.
"""

import json
import pathlib

import jinja2
import jinja2.ext
import jinja2.nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

import families
import micro

HERE = pathlib.Path(__file__).parent


class Generation(jinja2.ext.Extension):
    """{% generation %}: marks the assistant's text, prints it unchanged."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_text"), [], [], body).set_lineno(line)

    def _text(self, caller):
        return caller()


class Raised(jinja2.TemplateError):
    pass


def environment():
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise Raised(message)

    def strftime_now(form):
        import datetime

        return datetime.datetime(2025, 3, 4, 5, 6, 7).strftime(form)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = strftime_now
    return env


def expect(template, context):
    try:
        return {"want": environment().from_string(template).render(**json.loads(context))}
    except Raised as e:
        return {"error": "raise_exception", "message": str(e)}
    except RecursionError:
        return {"error": "RecursionError"}
    except Exception as e:
        return {"error": type(e).__name__}


def write(name, cases):
    names = [c["name"] for c in cases]
    assert len(names) == len(set(names))
    # The context is written as its own text, so that numbers and key order stay as they are.
    lines = []
    for case in cases:
        case = dict(case)
        context = case.pop("context")
        lines.append(json.dumps(case, ensure_ascii=True)[:-1] + ', "context": ' + context + "}")
    (HERE / name).write_text("[\n" + ",\n".join(lines) + "\n]\n")
    errors = sum("error" in c for c in cases)
    print(f"{name}: {len(cases)} cases, {errors} of them errors")


def main():
    assert jinja2.__version__ == "3.1.6", jinja2.__version__
    cases = []
    for group, entries in micro.GROUPS.items():
        for i, entry in enumerate(entries):
            template, context = (entry, "{}") if isinstance(entry, str) else entry
            cases.append({"name": f"{group}/{i:02}", "template": template, "context": context, **expect(template, context)})
    write("micro.json", cases)
    cases = []
    for family, conversation, context in families.cases():
        template = (HERE / "templates" / f"{family}.jinja").read_text()
        entry = {"name": f"{family}/{conversation}", "file": f"{family}.jinja", "context": context}
        cases.append({**entry, **expect(template, context)})
    write("families.json", cases)


main()
