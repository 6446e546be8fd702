"""The fixed operators: small changes that could be slips of the pen, found in a file's syntax tree and drawn by hash.

A change replaces a few bytes of the text, so that lines and layout stay. Nothing is changed outside functions, in
strings, annotations, decorators and the text of errors, nor what only guards (`strict=True`) or only shows
(`progress.advance(1)`, `progress=progress`).
"""

import ast
import dataclasses
import hashlib
import re

COMPARISONS = {
    ast.Lt: ("<", ("<=", ">=")), ast.LtE: ("<=", ("<", ">")), ast.Gt: (">", (">=", "<=")), ast.GtE: (">=", (">", "<")),
    ast.Eq: ("==", ("!=",)), ast.NotEq: ("!=", ("==",)), ast.Is: ("is", ("is not",)), ast.IsNot: ("is not", ("is",)),
    ast.In: ("in", ("not in",)), ast.NotIn: ("not in", ("in",)),
}  # fmt: skip
ARITHMETIC = {ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*")}
OPPOSITES = {
    "min": "max", "minimum": "maximum", "argmin": "argmax", "any": "all", "logical_and": "logical_or", "floor": "ceil",
}  # fmt: skip
OPPOSITES |= {there: back for back, there in OPPOSITES.items()}
GUARDS = {"strict", "encoding", "ensure_ascii"}
DISPLAYS = {"advance", "note", "progress"}


@dataclasses.dataclass(frozen=True)
class Change:
    """One replacement in a file's text.

    Attributes:
        operator: which of the fixed ones. place: the function it stands in, dotted.
        start, end: bytes of the text that are replaced. original, replacement: what stood there, what stands there now.
        line: number of the line. digest: hexadecimal, of all this but the positions; a line that moves keeps it.
    """

    operator: str
    place: str
    start: int
    end: int
    original: str
    replacement: str
    line: int
    digest: str = ""

    def applied(self, text: str) -> str:
        """The changed text."""
        data = text.encode()
        return (data[: self.start] + self.replacement.encode() + data[self.end :]).decode()


def changes(text: str) -> list[Change]:
    """Every change that the operators know of a file, by position."""
    found = sorted(_Finder(text).found, key=lambda change: (change.start, change.end, change.replacement))
    lines, seen, result = text.splitlines(), {}, []
    for change in found:
        words = (change.operator, change.place, lines[change.line - 1].strip(), change.original, change.replacement)
        seen[words] = seen.get(words, 0) + 1
        digest = hashlib.sha256(repr((*words, seen[words])).encode()).hexdigest()[:8]
        result.append(dataclasses.replace(change, digest=digest))
    return result


def draw(text: str, count: int) -> list[Change]:
    """`count` changes of a file, or fewer where it has fewer: one operator after the other gives its lowest digest, at
    most one a line. An edit elsewhere in the file leaves the draw as it is."""
    waiting: dict[str, list[Change]] = {}
    for change in sorted(changes(text), key=lambda change: change.digest):
        waiting.setdefault(change.operator, []).append(change)
    drawn: list[Change] = []
    lines: set[int] = set()
    while len(drawn) < count and waiting:
        for operator in sorted(waiting, key=lambda name: waiting[name][0].digest):
            change = waiting[operator].pop(0)
            if not waiting[operator]:
                del waiting[operator]
            if len(drawn) < count and change.line not in lines and _is_python(change.applied(text)):
                drawn.append(change)
                lines.add(change.line)
    return sorted(drawn, key=lambda change: change.start)


def _is_python(text: str) -> bool:
    try:
        compile(text, "mutant", "exec")
    except SyntaxError:
        return False
    return True


class _Finder(ast.NodeVisitor):
    def __init__(self, text: str) -> None:
        self.data = text.encode()
        self.starts = [0]
        for line in self.data.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.places: list[str] = []
        self.functions = 0
        self.found: list[Change] = []
        self.visit(ast.parse(text))

    # Where nothing is changed.

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.places.append(node.name)
        self.functions += 1
        for default in [*node.args.defaults, *node.args.kw_defaults]:
            if default is not None:
                self.visit(default)
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        for statement in body:
            self.visit(statement)
        self.functions -= 1
        self.places.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.places.append(node.name)
        for statement in node.body:
            self.visit(statement)
        self.places.pop()

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pass

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Raise(self, node: ast.Raise) -> None:
        self.change("statement", node, "pass")

    # What is changed.

    def visit_Compare(self, node: ast.Compare) -> None:
        if len(node.ops) == 1:
            sign, others = COMPARISONS[type(node.ops[0])]
            self.between("comparison", node.left, node.comparators[0], sign, others)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        sides = (node.left, node.right)
        if type(node.op) in ARITHMETIC and not any(
            isinstance(side, ast.List | ast.JoinedStr) or _is_text(side) for side in sides
        ):
            sign, other = ARITHMETIC[type(node.op)]
            self.between("arithmetic", *sides, sign, (other,))
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
            self.change("arithmetic", node, self.source(node.operand))
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.change("statement", node, "pass")
        if type(node.op) in (ast.Add, ast.Sub):
            sign, other = ARITHMETIC[type(node.op)]
            self.between("arithmetic", node.target, node.value, sign, (other,))
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if all(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets):
            self.change("statement", node, "pass")
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        call = node.value
        if isinstance(call, ast.Call):
            if isinstance(call.func, ast.Attribute) and call.func.attr in DISPLAYS:
                return
            self.change("statement", node, "pass")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if type(node.value) is int:
            self.change("constant", node, str(node.value + 1))

    def visit_If(self, node: ast.If) -> None:
        self.negate(node.test)
        self.generic_visit(node)

    visit_While = visit_IfExp = visit_If

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self.negate(test)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in DISPLAYS:
            return
        if name in OPPOSITES:
            end = self.offset(node.func.end_lineno, node.func.end_col_offset)
            self.put("minmax", node.func, end - len(name.encode()), end, OPPOSITES[name])
        self.visit(node.func)
        for argument in node.args:
            self.visit(argument)
        for keyword in node.keywords:
            self.keyword(node, keyword)

    def keyword(self, call: ast.Call, keyword: ast.keyword) -> None:
        """A named argument: an axis becomes another one, any other is left out or, true or false, becomes the other."""
        value = keyword.value
        if keyword.arg in GUARDS | DISPLAYS:
            return
        if keyword.arg == "axis":
            axis = ast.literal_eval(value) if isinstance(value, ast.Constant | ast.UnaryOp) else None
            if type(axis) is int:
                self.change("axis", value, "1" if axis == 0 else "0")
            return
        if isinstance(value, ast.Constant) and isinstance(value.value, bool):
            self.change("argument", value, str(not value.value))
        elif keyword.arg is not None:
            end = self.offset(keyword.end_lineno, keyword.end_col_offset)
            comma = re.match(rb"\s*,\s*", self.data[end:])
            self.put(
                "argument",
                keyword,
                self.offset(keyword.lineno, keyword.col_offset),
                end + (comma.end() if comma else 0),
                "",
            )
        self.visit(value)

    def negate(self, test: ast.expr) -> None:
        if isinstance(test, ast.Name) and test.id == "TYPE_CHECKING":
            return
        self.change("condition", test, f"not ({self.source(test)})")

    # How a change is noted.

    def offset(self, line: int, column: int) -> int:
        return self.starts[line - 1] + column

    def source(self, node: ast.AST) -> str:
        return self.data[
            self.offset(node.lineno, node.col_offset) : self.offset(node.end_lineno, node.end_col_offset)
        ].decode()

    def change(self, operator: str, node: ast.AST, replacement: str) -> None:
        start, end = self.offset(node.lineno, node.col_offset), self.offset(node.end_lineno, node.end_col_offset)
        self.put(operator, node, start, end, replacement)

    def between(self, operator: str, left: ast.AST, right: ast.AST, sign: str, others: tuple[str, ...]) -> None:
        start, end = self.offset(left.end_lineno, left.end_col_offset), self.offset(right.lineno, right.col_offset)
        pattern = rb"\s+".join(re.escape(word.encode()) for word in sign.split())
        match = re.search(pattern, self.data[start:end])
        if match is not None:
            for other in others:
                self.put(operator, left, start + match.start(), start + match.end(), other)

    def put(self, operator: str, node: ast.AST, start: int, end: int, replacement: str) -> None:
        if self.functions:
            line = self.data[:start].count(b"\n") + 1
            original = self.data[start:end].decode()
            self.found.append(Change(operator, ".".join(self.places), start, end, original, replacement, line))


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
