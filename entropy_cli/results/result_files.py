"""Reading the JSON of result files, and their versions."""

from pathlib import Path
from typing import Any

from entropy_cli.core.errors import ResultError
from entropy_cli.core.files import path_argument
from entropy_cli.core.reading import JSON_BYTES, parse_json, read_stream

ADVICE = "Give a JSON file that the --output of that command wrote."


def read_json(path: str | Path) -> Any:  # noqa: ANN401 - JSON
    """Read a JSON file.

    Raises:
        ResultError: it can't be read, or is not JSON.
    """
    path = path_argument("path", path)
    try:
        return parse_json(read_stream(path, JSON_BYTES))
    except OSError as error:
        raise ResultError(
            f"{path}: can't be read: {error.strerror}. Give a result of entropy-cli."
        ) from error
    except ValueError as error:
        reason = "" if isinstance(error, UnicodeDecodeError) else f" ({error})"
        raise ResultError(f"{path}: not JSON{reason}. Give a result of entropy-cli.") from error


def not_of(name: str, content: object, source: str) -> ResultError:
    """Return the error for a document that is no result of a command, with what it is instead."""
    schema = str(content.get("schema")) if isinstance(content, dict) else ""
    of, _, other = schema.partition("/")
    but = f", but one of {other[:20]}" if of == "entropy-cli" else ""
    return ResultError(f"{source}: not a result of entropy-cli {name}{but}. {ADVICE}")


def check_version(content: dict[str, Any], known: tuple[int, int], source: str, again: str) -> int:
    """Return the version of a result's schema.

    Args:
        content: the result.
        known: the earliest and the latest version that this program reads.
        source: of the result, for the message.
        again: the advice for an older version.

    Raises:
        ResultError: it is another version.
    """
    version = content.get("schema_version")
    earliest, latest = known
    if type(version) is not int or not earliest <= version <= latest:
        is_newer = isinstance(version, int) and version > latest
        versions = f"{earliest} to {latest}" if earliest < latest else f"{latest}"
        raise ResultError(
            f"{source}: schema version {version!r:.20}, this program reads {versions}. "
            f"{'Upgrade entropy-cli' if is_newer else again}."
        )
    return version
