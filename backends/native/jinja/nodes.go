package jinja

// Statements. Each is run by state.exec (exec.go).
type stmt interface{ at() int }

type pos int // line in the template

func (p pos) at() int { return int(p) }

type (
	output struct {
		pos
		parts []expr // constants print text between tags
	}
	forStmt struct {
		pos
		target    expr
		iter      expr
		test      expr // nil: none
		recursive bool
		body, els []stmt
	}
	ifStmt struct {
		pos
		branches []branch // if, elif …
		els      []stmt
	}
	setStmt struct {
		pos
		target, value expr
	}
	setBlock struct {
		pos
		target expr
		filter *filterExpr // chain whose innermost value is nil; or nil
		body   []stmt
	}
	macroStmt struct {
		pos
		*macroDef
	}
	callStmt struct {
		pos
		call *callExpr
		body *macroDef
	}
	filterStmt struct {
		pos
		filter *filterExpr
		body   []stmt
	}
	withStmt struct {
		pos
		targets, values []expr
		body            []stmt
	}
	// scopeStmt is a body with its own variables: {% generation %}, {% block %}.
	scopeStmt struct {
		pos
		body []stmt
		root bool // sees only the variables of the whole template
	}
	jump struct {
		pos
		to signal
	}
)

type branch struct {
	test expr
	body []stmt
}

type macroDef struct {
	name     string
	params   []string
	defaults []expr // of the last params
	body     []stmt
	// what the body mentions and so takes
	takesVarargs, takesKwargs, takesCaller bool
}

// Expressions. Each evaluates itself (eval.go).
type expr interface {
	eval(st *state, sc *scope) any
}

type (
	constExpr struct{ value any }
	nameExpr  struct{ name string }
	// nsTarget is ns.attr on the left of a set.
	nsTarget  struct{ name, attr string }
	tupleExpr struct{ items []expr }
	listExpr  struct{ items []expr }
	dictExpr  struct{ keys, values []expr }
	condExpr  struct{ test, then, els expr } // els may be nil
	logicExpr struct {
		and         bool
		left, right expr
	}
	notExpr   struct{ x expr }
	unaryExpr struct {
		op byte
		x  expr
	}
	binaryExpr struct {
		op          string
		left, right expr
	}
	concatExpr  struct{ parts []expr }
	compareExpr struct {
		first expr
		ops   []string
		rest  []expr
	}
	attrExpr struct {
		x    expr
		name string
	}
	itemExpr  struct{ x, index expr }
	sliceExpr struct{ x, start, stop, step expr } // nil: left out
	argList   struct {
		pos            []expr
		names          []string
		named          []expr
		spread, kwargs expr // *args, **kwargs
	}
	callExpr struct {
		fn   expr
		args argList
	}
	filterExpr struct {
		x    expr // nil: the body of a block
		name string
		args argList
	}
	testExpr struct {
		x    expr
		name string
		args argList
	}
)
