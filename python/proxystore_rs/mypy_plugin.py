"""Plugin for mypy: what is done to a `Proxy[T]` has the type that it has on a `T`.

Attributes, methods, indexing and operators of a proxy are checked as those of its target. In
`pyproject.toml`:

    [tool.mypy]
    plugins = ["proxystore_rs.mypy_plugin"]
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mypy.checker import TypeChecker
from mypy.checkmember import analyze_member_access
from mypy.maptype import map_instance_to_supertype
from mypy.nodes import ARG_POS, Expression, IndexExpr, TempNode
from mypy.plugin import AttributeContext, CheckerPluginInterface, MethodContext, Plugin
from mypy.typeops import make_simplified_union
from mypy.types import AnyType, Instance, ProperType, Type, UnionType, get_proper_type

__all__ = ["PROXY_TYPES", "ProxyStoreMypyPlugin", "plugin", "proxy_attribute_access"]

_PROXY = "proxystore_rs._core.Proxy"

PROXY_TYPES = (
    _PROXY,
    "proxystore_rs.proxy.Proxy",
    "proxystore_rs.store.ref.BaseRefProxy",
    "proxystore_rs.store.ref.OwnedProxy",
    "proxystore_rs.store.ref.RefProxy",
    "proxystore_rs.store.ref.RefMutProxy",
)
"""Full names of the proxy classes. Classes derived from them are treated in the same way."""

_BINARY = (
    *("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow"),
    *("lshift", "rshift", "and", "xor", "or"),
)
_OPERATORS = {f"__{name}__" for name in (*_BINARY, "lt", "le", "gt", "ge", "eq", "ne")}
_REFLECTED = {f"__r{name}__": f"__{name}__" for name in _BINARY}
_METHODS = {"__neg__", "__pos__", "__invert__", "__setitem__", "__delitem__"}
# The stub itself gives the types of calls, iteration, `with` and `await`.


class ProxyStoreMypyPlugin(Plugin):
    """The plugin."""

    def get_attribute_hook(self, fullname: str) -> Callable[[AttributeContext], Type] | None:
        """Return what finds the type of an attribute of a proxy."""
        owner, _, attr = fullname.rpartition(".")
        if owner in PROXY_TYPES and not attr.startswith("__proxy_"):
            return partial(proxy_attribute_access, attr=attr)
        return None

    def get_method_hook(self, fullname: str) -> Callable[[MethodContext], Type] | None:
        """Return what finds the type of an operation on a proxy."""
        owner, _, method = fullname.rpartition(".")
        if method in _OPERATORS:
            return partial(_operator, method=method, reflected=False)
        if method in _REFLECTED:
            return partial(_operator, method=_REFLECTED[method], reflected=True)
        if owner not in PROXY_TYPES:
            return None
        if method == "__getitem__":
            return _index
        return partial(_method, method=method) if method in _METHODS else None


def plugin(version: str) -> type[ProxyStoreMypyPlugin]:
    """Return the plugin's class; mypy calls this with its version."""
    return ProxyStoreMypyPlugin


def proxy_attribute_access(ctx: AttributeContext, *, attr: str) -> Type:
    """Return the type of an attribute, looked up on the target of the proxy."""
    target = _target(ctx.type)
    if target is None:
        return ctx.default_attr_type
    return analyze_member_access(
        attr,
        target,
        ctx.context,
        is_lvalue=ctx.is_lvalue,
        is_super=False,
        is_operator=False,
        original_type=target,
        chk=_checker(ctx.api),
    )


def _operator(ctx: MethodContext, *, method: str, reflected: bool) -> Type:
    # Also asked of `2 * proxy`, since the method of any type takes a proxy.
    if not ctx.arg_types or not ctx.arg_types[0]:
        return ctx.default_return_type
    own = _target(ctx.type)
    other = _target(get_proper_type(ctx.arg_types[0][0]))
    if own is None and other is None:
        return ctx.default_return_type
    left: Type = own or ctx.type
    right: Expression = TempNode(other, context=ctx.context) if other else ctx.args[0][0]
    if reflected:
        left, right = other or ctx.arg_types[0][0], TempNode(left, context=ctx.context)
    checker = _checker(ctx.api).expr_checker
    return checker.check_op(method, left, right, ctx.context, allow_reverse=True)[0]


def _index(ctx: MethodContext) -> Type:
    target = _target(ctx.type)
    if target is None or not isinstance(ctx.context, IndexExpr):
        return ctx.default_return_type
    # Knows tuples and typed dictionaries, which have no method that says as much.
    return _checker(ctx.api).expr_checker.visit_index_with_type(target, ctx.context)


def _method(ctx: MethodContext, *, method: str) -> Type:
    target = _target(ctx.type)
    if target is None:
        return ctx.default_return_type
    arguments = [expression for group in ctx.args for expression in group]
    kinds = [ARG_POS] * len(arguments)
    checker = _checker(ctx.api).expr_checker
    return checker.check_method_call_by_name(method, target, arguments, kinds, ctx.context)[0]


def _target(proxy: ProperType) -> Type | None:
    """Return the `T` of a proxy of `T`, or None where there is nothing to learn from it."""
    if isinstance(proxy, UnionType):
        # What ProxyOr[T] is; the other members have attributes of their own.
        found = [_target(get_proper_type(item)) for item in proxy.items]
        targets = [target for target in found if target is not None]
        return make_simplified_union(targets) if targets else None
    if not isinstance(proxy, Instance):
        return None
    base = next((base for base in proxy.type.mro if base.fullname == _PROXY), None)
    if base is None:
        return None
    target = map_instance_to_supertype(proxy, base).args[0]
    return None if isinstance(get_proper_type(target), AnyType) else target


def _checker(api: CheckerPluginInterface) -> TypeChecker:
    assert isinstance(api, TypeChecker)
    return api
