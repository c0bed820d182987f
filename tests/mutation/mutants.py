"""The mutants of a source text: each differs from it in one place."""

import ast
import copy
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

_COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ARITHMETIC = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
_SQL = re.compile(
    r"\s*(BEGIN|COMMIT|ROLLBACK|SAVEPOINT|PRAGMA|SELECT|INSERT|UPDATE|DELETE|SET|KILL|LOCK|CREATE|DROP|ALTER)\s+\S"
)
_SQL_SWAPS = ((" > ", " >= "), (" >= ", " > "), (" = ", " <> "), (" OR ", " AND "), (" AND ", " OR "), (" NOT ", " "))
_ALIKE = {
    "ImportFrom": "Import",
    "Global": "Import",
    "Nonlocal": "Import",
    "AsyncFunctionDef": "FunctionDef",
    "AsyncWith": "With",
    **dict.fromkeys(("Delete", "Assert", "AugAssign", "Break", "Continue"), "Raise"),
    **dict.fromkeys(("List", "Set"), "Tuple"),
}
_NULL_CONTEXT = "__import__('contextlib').nullcontext()"

_Place = tuple[int, int]  # Bytes of the source: where the replaced text begins and ends.


@dataclass(frozen=True)
class Mutant:
    """One change; `lines` are the lines of the statement it is in, by which its tests are chosen.

    A statement that runs `at_import` may give a value to a name, by whose uses they are chosen then.
    """

    inside: str
    line: int
    lines: range
    at_import: bool
    name: str | None
    before: str
    after: str
    source: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What stays the same when lines and modules move: the function or class, and the texts."""
        return self.inside, self.before, self.after


def mutants_of(source: str) -> Iterator[Mutant]:
    """Yield every mutant that is a valid program, in the order of the source."""
    finder = _Finder(source)
    finder.visit(finder.tree)
    original = ast.dump(finder.tree)
    for place, text, mutant in sorted(finder.found, key=lambda found: (found[0], found[1])):
        changed = _spliced(finder.source, place, text)
        try:
            tree = ast.parse(changed)
        except (SyntaxError, ValueError):
            continue
        if ast.dump(tree) != original:
            yield replace(mutant, source=changed)


def _spliced(source: bytes, place: _Place, text: str) -> str:
    return (source[: place[0]] + text.encode() + source[place[1] :]).decode()


class _Finder(ast.NodeVisitor):
    """Collects the changes of a source text, with what the visited node is inside of."""

    def __init__(self, source: str) -> None:
        self.source = source.encode()
        self.tree = ast.parse(source)
        self.found: set[tuple[_Place, str, Mutant]] = set()
        self._starts = [0]
        for line in self.source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._scope: list[str] = []
        self._functions: list[Counter[str]] = []
        self._statement: ast.stmt | None = None
        self._comments = {
            token.start[0]: token.string
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type == tokenize.COMMENT
        }
        self._modules = {
            alias.asname or alias.name.partition(".")[0]
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        }

    # What is not mutated.

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pass  # Before Python 3.12 the places of what is inside are not known.

    def visit_Import(self, node: ast.AST) -> None:
        pass

    def visit_arg(self, node: ast.arg) -> None:
        pass  # A type: no test can see it.

    # What holds others.

    def visit_Module(self, node: ast.Module | ast.ClassDef) -> None:
        self._visit_body(node.body)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._visit_all([*node.bases, *node.keywords])
        self._scope.append(node.name)
        self._visit_body(node.body)
        self._scope.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._visit_all([*node.args.defaults, *(value for value in node.args.kw_defaults if value)])
        self._scope.append(node.name)
        self._functions.append(_bindings(node))
        self._visit_body(node.body)
        self._functions.pop()
        self._scope.pop()

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) != "TYPE_CHECKING":
            self._negate(node.test)
            self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._delete_assignment(node, [node.target])
            self.visit(node.value)

    def _visit_body(self, body: list[ast.stmt]) -> None:
        has_docstring = body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
        self._visit_all(body[1:] if has_docstring else body)

    def _visit_all(self, nodes: list[ast.AST] | list[ast.stmt] | list[ast.expr]) -> None:
        for node in nodes:
            self.visit(node)

    def visit(self, node: ast.AST) -> None:
        kind = type(node).__name__
        outer = self._statement
        if isinstance(node, ast.stmt):
            self._statement = node
        getattr(self, f"visit_{_ALIKE.get(kind, kind)}", self.generic_visit)(node)
        self._statement = outer

    # Statements.

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Yield | ast.YieldFrom):
            self.generic_visit(node)
            return
        self._replace(node, "pass")
        call = node.value.value if isinstance(node.value, ast.Await) else node.value
        if isinstance(call, ast.Call):
            self._arguments(call)
            self._visit_all(list(ast.iter_child_nodes(call)))
        else:
            self.visit(call)

    def visit_Raise(self, node: ast.stmt) -> None:
        self._replace(node, "pass")
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if [ast.unparse(target) for target in node.targets] != ["__all__"]:
            self._delete_assignment(node, node.targets)
            self.generic_visit(node)

    def _delete_assignment(self, node: ast.stmt, targets: list[ast.expr]) -> None:
        bound_again = self._functions[-1] if self._functions else Counter()
        if all(not isinstance(target, ast.Name) or bound_again[target.id] > 1 for target in targets):
            self._replace(node, "pass")

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is None:
            self._replace(node, "pass")
        elif not isinstance(node.value, ast.Constant):
            self._replace(node.value, "None")
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def visit_With(self, node: ast.With | ast.AsyncWith) -> None:
        for item in node.items:
            if item.optional_vars is None:
                self._replace(item.context_expr, _NULL_CONTEXT)
        self.generic_visit(node)

    # Expressions.

    def visit_Compare(self, node: ast.Compare) -> None:
        for place, operation in enumerate(node.ops):
            changed = copy.deepcopy(node)
            changed.ops[place] = _COMPARISONS[type(operation)]()
            self._replace(node, ast.unparse(changed))
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        swapped = copy.deepcopy(node)
        swapped.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        self._replace(node, f"({ast.unparse(swapped)})")
        for place in range(len(node.values)):
            rest = copy.deepcopy(node)
            del rest.values[place]
            self._replace(node, f"({ast.unparse(rest if len(rest.values) > 1 else rest.values[0])})")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self._replace(node, f"({ast.unparse(node.operand)})")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        is_text = isinstance(node.left, ast.Constant | ast.JoinedStr) and not isinstance(
            getattr(node.left, "value", ""), int
        )
        if type(node.op) in _ARITHMETIC and not is_text:
            changed = copy.deepcopy(node)
            changed.op = _ARITHMETIC[type(node.op)]()
            self._replace(node, f"({ast.unparse(changed)})")
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for condition in node.ifs:
            self._negate(condition)
        self.generic_visit(node)

    def visit_Await(self, node: ast.Await) -> None:
        if isinstance(node.value, ast.Call):
            self._arguments(node.value)
            self._visit_all(list(ast.iter_child_nodes(node.value)))
        else:
            self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id == "TypeVar":
            return
        self._arguments(node)
        if isinstance(node.func, ast.Attribute):
            receiver = node.func.value
            if not isinstance(receiver, ast.Name) or receiver.id not in self._modules | {"self", "cls"}:
                self._replace(node, ast.unparse(receiver))
        self.generic_visit(node)

    def visit_Slice(self, node: ast.Slice) -> None:
        for bound in ("lower", "upper"):
            if getattr(node, bound) is not None:
                changed = copy.deepcopy(node)
                setattr(changed, bound, None)
                self._replace(node, ast.unparse(changed))
        self.generic_visit(node)

    def visit_Tuple(self, node: ast.Tuple | ast.List | ast.Set) -> None:
        if isinstance(getattr(node, "ctx", None), ast.Store):
            return
        plain = all(isinstance(element, ast.Constant | ast.Name | ast.Attribute) for element in node.elts)
        if plain and len(node.elts) > 1:
            self._drop_each(node.elts)
        if not (isinstance(node, ast.Set) and plain):
            self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.visit(node.value)
        is_key = isinstance(node.slice, ast.Tuple) and ast.unparse(node.value) != "Literal"
        self._visit_all(node.slice.elts if is_key else [node.slice])

    def visit_Dict(self, node: ast.Dict) -> None:
        for key, value in zip(node.keys, node.values, strict=True):
            if key is not None:
                begin, end = self._place(key)[0], self._place(value)[1]
                comma = re.match(rb"\s*,\s*", self.source[end:])
                self._add((begin, end + (comma.end() if comma else 0)), "", value)
            self.visit(value)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self._replace(node, repr(not value))
        elif isinstance(value, int):
            self._replace(node, repr(value + 1))
            self._replace(node, repr(value - 1) if value else "(-1)")
        elif isinstance(value, str):
            for text in _other_texts(value):
                self._replace(node, repr(text))

    # The changes.

    def _arguments(self, call: ast.Call) -> None:
        arguments = sorted([*call.args, *call.keywords], key=lambda node: self._place(node))
        for argument in arguments:
            if isinstance(argument, ast.Starred) or (isinstance(argument, ast.keyword) and argument.arg):
                self._drop(arguments, argument)

    def _drop_each(self, nodes: list[ast.expr]) -> None:
        for node in nodes:
            self._drop(nodes, node)

    def _drop(self, nodes: list[ast.expr] | list[ast.AST], node: ast.AST) -> None:
        place = nodes.index(node)
        begin, end = self._place(node)
        if place + 1 < len(nodes):
            end = self._place(nodes[place + 1])[0]
        elif place:
            begin = self._place(nodes[place - 1])[1]
        self._add((begin, end), "", node)

    def _negate(self, test: ast.expr) -> None:
        if not isinstance(test, ast.Compare | ast.BoolOp | ast.UnaryOp):
            self._replace(test, f"not ({ast.unparse(test)})")

    def _replace(self, node: ast.AST, text: str) -> None:
        self._add(self._place(node), text, node)

    def _place(self, node: ast.AST) -> _Place:
        begin = self._starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
        return begin, self._starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]

    def _add(self, place: _Place, text: str, node: ast.AST) -> None:
        line, end_line = node.lineno, node.end_lineno  # type: ignore[attr-defined]
        begin, end = self._starts[line - 1], self._starts[end_line]
        changed = (self.source[begin : place[0]] + text.encode() + self.source[place[1] : max(end, place[1])]).decode()
        mutant = Mutant(
            inside=".".join(self._scope),
            line=line,
            lines=self._lines_of_statement(),
            at_import=not self._functions,
            name=None if self._scope else _assigned_name(self._statement),
            before=self._shown(self.source[begin:end].decode(), line, end_line),
            after=self._shown(changed, line, end_line),
            source="",
        )
        self.found.add((place, text, mutant))

    def _shown(self, text: str, line: int, end_line: int) -> str:
        for number in range(line, end_line + 1):
            text = text.replace(self._comments.get(number, "\n"), " ")
        return " ".join(text.split())

    def _lines_of_statement(self) -> range:
        assert self._statement is not None
        body = getattr(self._statement, "body", None)
        end = max(self._statement.lineno, body[0].lineno - 1) if body else self._statement.end_lineno
        return range(self._statement.lineno, (end or 0) + 1)


def _assigned_name(statement: ast.stmt | None) -> str | None:
    target = getattr(statement, "target", None) or next(iter(getattr(statement, "targets", ())), None)
    return target.id if isinstance(target, ast.Name) else None


def uses_of_names(source: str) -> Iterator[tuple[str, int, bool]]:
    """Yield each use of a name, its line, and whether it is inside of a function."""
    yield from _uses(ast.parse(source), False)


def _uses(node: ast.AST, in_function: bool) -> Iterator[tuple[str, int, bool]]:
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        yield node.id, node.lineno, in_function
    if isinstance(node, ast.Attribute):
        yield node.attr, node.lineno, in_function
    is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    for child in ast.iter_child_nodes(node):
        yield from _uses(child, in_function or (is_function and child in node.body))  # type: ignore[attr-defined]


def _bindings(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Counter[str]:
    """Count how often a function gives each name a value: to delete the only one is no mutant but a crash."""
    names = [node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg)]
    names += [node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    return Counter(names)


def _other_texts(text: str) -> Iterator[str]:
    """Yield what to put for a text: identifiers, codes and SQL have mutants, prose has none."""
    if not re.search(r"\s", text):
        yield f"{text}x"
    elif _SQL.match(text):
        statements = [statement for statement in text.split(";") if statement.strip()]
        if len(statements) > 1:
            for place in range(len(statements)):
                yield ";".join(statements[:place] + statements[place + 1 :])
        else:
            yield text.rstrip().rpartition(" ")[0]
    for word, other in _SQL_SWAPS:
        if word in text:
            yield text.replace(word, other, 1)
