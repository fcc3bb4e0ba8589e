"""A task's signature: arguments in, payload out, and back.

    call ──bind──▶ Struct ──check kinds──▶ JSON ──▶ payload          all arguments are scalars of the type hinted
                      └──▶ survey ─▶ JSON ─▶ read back ─▶ same? ──▶ payload     anything else

The short way needs no look back, because for the scalars of `hints.exact_kinds` msgspec's round trip is exact; the
long way proves it for the value at hand. What fails the short way is explained by the long one, which names the culprit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from typing import Any, NoReturn

from msgspec import UNSET, DecodeError, UnsetType, defstruct, field
from msgspec.structs import astuple

from dayjob.codec.envelope import read_any, reader, write
from dayjob.codec.explain import explain_call, explain_misfit
from dayjob.codec.hints import check_annotated, check_hint, exact_kinds, is_context, resolve
from dayjob.codec.same import same
from dayjob.codec.survey import WIDEST_INT, Check, Refused, survey
from dayjob.codec.untyped import VERSION_KEY, encode_untyped, refuse
from dayjob.errors import ConfigError, PayloadInvalid, PayloadNotSerializable, PayloadTooLarge, shown

RESULT = "return value"

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]


class Signature:
    """How calls of a task's function become payloads and back. Made at decoration, immutable but for `upcasters`.

    Args:
        fn: the function. name: the task's name, for errors. version: of the payload's shape, from 1.
    Attributes:
        params: parameter names in order, without the context. required: those without a default. hints: their types by name.
        takes_context: the first parameter is a `JobContext`.
        call: the function to call with `*decode(payload)` (after the context); keyword-only parameters are seen to.
        upcasters: version -> function that turns arguments of that version into those of the next.
    Raises:
        ConfigError: a parameter without a type hint, of a type that cannot travel, `*args`, `**kwargs`, or a context
            that is not the first parameter.
    """

    def __init__(self, fn: Callable[..., Any], name: str, version: int = 1) -> None:
        self.name = name
        self.version = version
        self.upcasters: dict[int, Upcaster] = {}
        parameters = list(signature(fn).parameters.values())
        check_annotated(parameters, name)
        hints = resolve(fn, name)
        self.takes_context = bool(parameters) and is_context(hints.get(parameters[0].name))
        if self.takes_context and parameters[0].kind is Parameter.KEYWORD_ONLY:
            raise ConfigError(f"task {name!r}: the context must be the first positional parameter")
        parameters = parameters[1:] if self.takes_context else parameters
        for p in parameters:
            _check_hint(name, p.name, hints[p.name])
        self.params = tuple(p.name for p in parameters)
        self.hints = {p.name: hints[p.name] for p in parameters}
        self.required = tuple(p.name for p in parameters if p.default is p.empty)
        self.call = _caller(fn, parameters, self.takes_context)
        self._positional = sum(p.kind is not Parameter.KEYWORD_ONLY for p in parameters)
        self._kinds = tuple(exact_kinds(hints[p.name]) | _OMITTED[p.default is p.empty] for p in parameters)
        self._prefix = b"" if version == 1 else b'{"%s":%d' % (VERSION_KEY.encode(), version)
        self._bind = _struct(name, parameters, lambda p: Any, lambda default: UNSET)
        self._read: Callable[[bytes], Any] = reader(_struct(name, parameters, lambda p: hints[p.name], _default))
        self._returns(hints.get("return", Any))

    # -- arguments -----------------------------------------------------------------------------------------------

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], limit: int) -> bytes:
        """The payload of a call: JSON by parameter name, at most *limit* bytes; omitted defaults stay omitted.

        Raises:
            PayloadInvalid: an argument is missing, unknown, or not of the type hinted.
            PayloadNotSerializable: an argument has no JSON form. PayloadTooLarge: over *limit*.
        """
        try:
            bound = self._bind(*args, **kwargs)
        except TypeError:
            raise explain_call(self.name, self.params, self.required, self._positional, args, kwargs) from None
        payload = b""
        try:
            for value, kinds in zip(astuple(bound), self._kinds):  # noqa: B905  # equal by construction; strict costs
                kind = type(value)
                if kind not in kinds:
                    break
                check = kinds[kind]
                if check is not None:
                    check(value)
            else:
                payload = write(bound)
        except (Refused, ValueError):
            pass  # the long way says why
        if not payload:
            payload = self._write_closely(bound, limit)
        if self._prefix:
            payload = self._prefix + (b"}" if payload == b"{}" else b"," + payload[1:])
        if len(payload) > limit:
            raise PayloadTooLarge(self.name, len(payload), limit)
        return payload

    def encode_json(self, args: Mapping[str, Any], limit: int) -> bytes:
        """The payload of a call by name: *args* in their JSON forms (`"9.99"` for a Decimal), checked by the hints."""
        payload = encode_untyped(self.name, args, limit, self.version)
        if not args.keys() <= set(self.params):
            raise explain_call(self.name, self.params, self.required, self._positional, (), args)
        self.decode(payload)
        return payload

    def decode(self, payload: bytes) -> tuple[Any, ...]:
        """The arguments in the order of `params`, defaults filled in, ready for `call`.

        Raises:
            PayloadInvalid: the payload does not fit: it was made by other code, or its upcaster is missing or failed.
        """
        prefix = self._prefix
        try:
            if not prefix:
                return astuple(self._read(payload))
            if payload.startswith(prefix + b","):
                return astuple(self._read(b"{" + payload[len(prefix) + 1 :]))
            return self._decode_closely(payload)
        except Exception:  # noqa: BLE001  # a dataclass may raise anything; the long way says what
            return self._decode_closely(payload)

    def arguments(self, payload: bytes) -> dict[str, Any]:
        """The arguments by name as the task gets them, defaults included."""
        return dict(zip(self.params, self.decode(payload), strict=True))

    # -- results -------------------------------------------------------------------------------------------------

    def encode_result(self, value: Any, limit: int) -> bytes:
        """The return value as JSON, checked like an argument; without a return hint tuples may become lists.

        Raises:
            PayloadError: it does not fit the return hint, has no JSON form, or has more than *limit* bytes.
        """
        try:
            check = self._result_kinds[type(value)]
            if check is not None:
                check(value)
            encoded = b"null" if value is None else write(value)
        except (KeyError, Refused, ValueError):
            encoded = self._write_result_closely(value, limit)
        if len(encoded) > limit:
            raise PayloadTooLarge(self.name, len(encoded), limit)
        return encoded

    def decode_result(self, encoded: bytes) -> Any:
        """The return value as the hint says; `PayloadInvalid` when the hint has changed since."""
        try:
            return self._read_result(encoded)
        except DecodeError as error:
            raise PayloadInvalid(
                self.name, RESULT, f"the stored result does not fit the return hint: {error}"
            ) from None

    def _returns(self, hint: Any) -> None:
        if hint is NoReturn or getattr(hint, "_name", None) == "Never":
            hint = None
        _check_hint(self.name, RESULT, hint)
        self._loose = hint is Any
        self._result_kinds = exact_kinds(None if self._loose else hint)
        self._read_result: Callable[[bytes], Any] = reader(hint)

    # -- the long way --------------------------------------------------------------------------------------------

    def _write_closely(self, bound: Any, limit: int) -> bytes:
        """Write what the short way would not, or say why it cannot be written."""
        doubtful: list[tuple[int, Any]] = []
        for place, (value, kinds) in enumerate(zip(astuple(bound), self._kinds, strict=True)):
            if not _surely_fits(value, kinds):
                doubtful.append((place, value))
                try:
                    survey(value, limit)
                except Refused as refused:
                    refuse(self.name, self.params[place], refused, limit)
        try:
            payload = write(bound)
        except (TypeError, ValueError, RecursionError):
            self._explain_unwritable(bound)
        if len(payload) > limit:
            raise PayloadTooLarge(self.name, len(payload), limit)
        received = self._read_or_explain(payload, {self.params[place]: value for place, value in doubtful})
        for place, value in doubtful:
            try:
                same(value, received[place])
            except Refused as refused:
                refuse(self.name, self.params[place], refused, limit)
        return payload

    def _explain_unwritable(self, bound: Any) -> NoReturn:
        for name, value in zip(self.params, astuple(bound), strict=True):
            try:
                write(None if value is UNSET else value)
            except (TypeError, ValueError, RecursionError) as error:
                raise PayloadNotSerializable(self.name, name, f"{error}: pass plain data") from None
        raise PayloadNotSerializable(self.name, None, "the arguments cannot be written as JSON")

    def _write_result_closely(self, value: Any, limit: int) -> bytes:
        try:
            survey(value, limit)
            encoded = write(value)
            if len(encoded) <= limit:
                same(value, self._read_result(encoded), loose=self._loose)
        except Refused as refused:
            refuse(self.name, RESULT, refused, limit)
        except DecodeError as error:
            raise explain_misfit(self.name, error, RESULT) from None
        except (TypeError, ValueError, RecursionError) as error:
            raise PayloadNotSerializable(self.name, RESULT, str(error)) from None
        return encoded

    def _decode_closely(self, payload: bytes) -> tuple[Any, ...]:
        """Read a payload that names its version, bring an older one up, or say why it does not fit."""
        try:
            data = read_any(payload)
        except (DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise PayloadInvalid(self.name, None, f"the payload is no JSON: {error}") from None
        if not isinstance(data, dict):
            raise PayloadInvalid(self.name, None, "the payload is no JSON object")
        version = data.pop(VERSION_KEY, 1)
        if type(version) is not int or version < 1 or version > self.version:
            raise PayloadInvalid(
                self.name, None, f"the payload has version {version!r}, this code knows up to {self.version}: update it"
            )
        for step in range(version, self.version):
            data = self._upcast(step, data)
        try:
            return self._read_or_explain(write(data))
        except PayloadInvalid as error:
            if version < self.version:
                error.add_note(f"after its upcasters brought the payload from version {version} to {self.version}")
            raise

    def _upcast(self, version: int, data: dict[str, Any]) -> dict[str, Any]:
        upcaster = self.upcasters.get(version)
        if upcaster is None:
            raise PayloadInvalid(
                self.name,
                None,
                f"the payload has version {version} and no upcaster takes it on: add @task.upcast({version})",
            )
        try:
            data = upcaster(data)
        except Exception as error:
            raise PayloadInvalid(
                self.name, None, f"upcast({version}) raised {type(error).__name__}: {error}"
            ) from error
        try:
            survey(data, 2**40)
            write(data)
        except (Refused, TypeError, ValueError) as error:
            raise PayloadInvalid(
                self.name, None, f"what upcast({version}) returned has no JSON form: {error}"
            ) from None
        if not isinstance(data, dict):
            raise PayloadInvalid(self.name, None, f"upcast({version}) must return a dict, not {type(data).__name__}")
        return data

    def _read_or_explain(self, payload: bytes, sent: Mapping[str, Any] | None = None) -> tuple[Any, ...]:
        try:
            return astuple(self._read(payload))
        except (DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise explain_misfit(self.name, error, sent=sent) from None
        except Exception as error:
            problem = f"making an argument of it raised {type(error).__name__}: {shown(error)}"
            raise PayloadInvalid(self.name, None, problem) from error


def _surely_fits(value: Any, kinds: dict[type, Check | None]) -> bool:
    """True when *value* is a scalar that arrives as it is."""
    kind = type(value)
    if kind not in kinds:
        return False
    check = kinds[kind]
    if check is None:
        return kind is not int or value.bit_length() <= WIDEST_INT
    try:
        check(value)
    except Refused:
        return False
    return kind is not str or value.isascii()


_OMITTED: dict[bool, dict[type, Check | None]] = {True: {}, False: {UnsetType: None}}


def _check_hint(task: str, where: str, hint: Any) -> None:
    if is_context(hint):
        raise ConfigError(f"task {task!r}, {where}: a JobContext can only be the first parameter")
    check_hint(task, where, hint)


def _default(value: Any) -> Any:
    """*value* as a Struct's default: the very object, as a call of the function would use it."""
    return field(default_factory=lambda: value)


def _struct(
    task: str, parameters: list[Parameter], hint: Callable[[Parameter], Any], default: Callable[[Any], Any]
) -> Any:
    """A Struct class with a field per parameter, keyword-only ones last and by name only."""
    fields: tuple[list[Any], list[Any]] = ([], [])
    for p in parameters:
        spec = (p.name, hint(p)) if p.default is p.empty else (p.name, hint(p), default(p.default))
        fields[p.kind is Parameter.KEYWORD_ONLY].append(spec)
    try:
        made = defstruct("Arguments", fields[0], gc=False, forbid_unknown_fields=True)
        return defstruct("Arguments", fields[1], bases=(made,), gc=False, kw_only=True) if fields[1] else made
    except (TypeError, ValueError) as error:
        raise ConfigError(f"task {task!r}: its parameters cannot be read: {error}") from None


def _caller(fn: Callable[..., Any], parameters: list[Parameter], takes_context: bool) -> Callable[..., Any]:
    names = tuple(p.name for p in parameters if p.kind is Parameter.KEYWORD_ONLY)
    if not names:
        return fn
    count = len(parameters) - len(names) + takes_context

    def call(*args: Any) -> Any:
        return fn(*args[:count], **dict(zip(names, args[count:], strict=True)))

    return call
