"""The small changes of a program that tests should notice: what may be changed in a Python file, and the file with one change.

Nothing is changed in what doesn't run or is only read by people: docstrings, type hints, decorators, `__all__`, imports, and strings with a space.
"""

from __future__ import annotations

import ast
import copy
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div, ast.Add),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.FloorDiv,),
    ast.Pow: (ast.Mult,),
    ast.LShift: (ast.RShift,),
    ast.RShift: (ast.LShift,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.BitXor: (ast.BitOr,),
}
COMMUTATIVE = ("min", "max", "minimum", "maximum", "promote_types", "logical_and", "logical_or")


@dataclass(frozen=True)
class Mutation:
    """One change.

    Attributes:
        key: names it as long as its function is the same: a hash of the file's path, the function, the change, and the how-manieth of its kind.
        function: the outermost in which it is, with its class; empty for a module's own lines.
        kind: comparison, arithmetic, boolean, constant, string, return, removed, swapped, branch or off by one.
    """

    key: str
    function: str
    line: int
    kind: str
    before: str
    after: str
    node: ast.AST
    new: ast.AST


def mutations(path: str, tree: ast.Module) -> list[Mutation]:
    """One for every place of the file that can be changed; which of the changes that a place offers is drawn by its key."""
    found, seen = [], dict[tuple[str, ...], int]()
    for function, node in _places(tree, "", None, False):
        offers = list(_offers(node))
        if not offers:
            continue
        before = ast.unparse(node).split("\n")[0]
        place = path, function, type(node).__name__, before
        seen[place] = seen.get(place, 0) + 1
        key = hashlib.sha256(repr((*place, seen[place])).encode()).hexdigest()
        kind, new = offers[int(key[-4:], 16) % len(offers)]
        after = ast.unparse(new).split("\n")[0]
        found.append(Mutation(key, function, getattr(node, "lineno", 0), kind, before, after, node, new))
    return found


def mutated(path: str, source: str, key: str) -> str:
    """The file's text with the mutation of this key."""
    tree = ast.parse(source)
    mutation = next(mutation for mutation in mutations(path, tree) if mutation.key == key)
    return ast.unparse(_Replaced(mutation).visit(tree))


class _Replaced(ast.NodeTransformer):
    def __init__(self, mutation: Mutation) -> None:
        self.mutation = mutation

    def visit(self, node: ast.AST) -> ast.AST:
        return ast.copy_location(self.mutation.new, node) if node is self.mutation.node else self.generic_visit(node)


def _places(node: ast.AST, function: str, parent: ast.AST | None, inside: bool) -> Iterator[tuple[str, ast.AST]]:
    if _is_only_read(node, parent):
        return
    if parent is not None:
        yield function, node
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not inside:
        function, inside = f"{function}.{node.name}" if function else node.name, isinstance(node, ast.FunctionDef)
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _places(child, function, node, inside)


def _is_only_read(node: ast.AST, parent: ast.AST | None) -> bool:
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Assert() | ast.Global() | ast.Nonlocal() | ast.Expr(value=ast.Constant()):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__")]):
            return True
        case ast.Assign(value=ast.Subscript() | ast.BinOp(op=ast.BitOr())) if isinstance(parent, ast.Module):  # names of types
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")) | ast.Call(func=ast.Name(id="cast" | "TypeVar")):
            return True
        case ast.Constant():
            return isinstance(parent, ast.JoinedStr)
        case ast.JoinedStr():
            return isinstance(parent, ast.FormattedValue)  # how a number is written
    return False


def _offers(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """What may take the place of a node."""
    match node:
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                for other in COMPARISONS[type(op)]:
                    yield "comparison", _with(node, ops=[*ops[:i], other(), *ops[i + 1 :]])
        case ast.BinOp(op=ast.MatMult()):
            yield "swapped", _with(node, left=node.right, right=node.left)
        case ast.BinOp():
            for operator in ARITHMETIC[type(node.op)]:
                yield "arithmetic", _with(node, op=operator())
        case ast.BoolOp():
            yield "boolean", _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
        case ast.UnaryOp():
            yield "boolean" if isinstance(node.op, ast.Not) else "arithmetic", node.operand
        case ast.Constant():
            yield from (("string" if isinstance(node.value, str) else "constant", ast.Constant(value)) for value in _other_values(node.value))
        case ast.Return(value=ast.AST()) if not (isinstance(node.value, ast.Constant) and not node.value.value):  # as good as None
            yield "return", ast.Return(ast.Constant(None))
        case ast.Expr() | ast.AugAssign() | ast.Raise() | ast.Continue() | ast.Break():
            yield "removed", ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "removed", ast.Pass()
        case ast.If() | ast.While():
            yield "branch", _with(node, test=ast.Constant(False))
            if isinstance(node, ast.If):
                yield "branch", _with(node, test=ast.Constant(True))
        case ast.IfExp():
            yield "branch", _with(node, body=node.orelse, orelse=node.body)
        case ast.Call(func=ast.Name(id="range"), args=[*_, last]):
            yield "off by one", _with(node, args=[*node.args[:-1], ast.BinOp(last, ast.Sub(), ast.Constant(1))])
        case ast.Call(args=[ast.Name() | ast.Attribute() | ast.Subscript() as first, second, *rest]):
            if not isinstance(second, ast.Starred) and ast.unparse(node.func).split(".")[-1] not in COMMUTATIVE:
                yield "swapped", _with(node, args=[second, first, *rest])
        case ast.Slice(lower=lower, upper=upper):
            for name, bound in (("lower", lower), ("upper", upper)):
                if bound is not None and not isinstance(bound, ast.Constant):
                    yield "off by one", _with(node, **{name: ast.BinOp(bound, ast.Add(), ast.Constant(1))})


def _with(node: ast.AST, **fields: object) -> ast.AST:
    other = copy.copy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


def _other_values(value: object) -> list[object]:
    match value:
        case bool():
            return [not value]
        case int():
            return [value + 1, value - 1]
        case float():
            return [value + 1, value * 2] if abs(value) > 1e-3 else [value + 1]
        case str() if " " not in value and "\n" not in value:
            return [value + "_"]
    return []
