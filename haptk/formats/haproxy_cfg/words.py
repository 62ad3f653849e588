"""A line of a haproxy.cfg into words, byte for byte as HAProxy 2.6 does it (configuration.txt 2.2 and 2.3).

* Blanks separate words; `#` outside quotes starts a comment, even in the middle of a word.
* Outside single quotes a backslash gives space, `\\`, `#`, quotes, `\\n \\r \\t` and `\\xNN`; inside double quotes also `$`.
  A backslash before anything else stays, so that regular expressions survive.
* Environment variables exist only inside double quotes (and in addresses, by another grammar: units.expand): `$NAME`,
  `${NAME}`, `${NAME-default}`, and `${NAME[*]}` for a list that becomes several words. An unset variable is empty. `.FILE`,
  `.LINE` and `.SECTION` are built in.
* There is no line continuation in HAProxy 2.6: a backslash at the end of a line is a word of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

from haptk.formats.haproxy_cfg.model import Refused

MAX_LINE_BYTES = 2048  # LINESIZE of HAProxy
MAX_WORDS = 64  # MAX_LINE_ARGS of HAProxy
_BLANKS = " \t"
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_ESCAPES = {" ": " ", "\\": "\\", "#": "#", "'": "'", '"': '"', "n": "\n", "r": "\r", "t": "\t"}
_HEX = frozenset("0123456789abcdefABCDEF")


class _Splitter:
    """One pass over one line. `position` is where the next character stands; errors name it, counted from 1."""

    def __init__(self, text: str, environ: Mapping[str, str]) -> None:
        self.text = text
        self.environ = environ
        self.position = 0
        self.words: list[str] = []
        self.word: list[str] = []
        self.in_word = False

    def split(self) -> list[str]:
        quote = ""
        opened = 0
        text = self.text
        while self.position < len(text):
            char = text[self.position]
            if quote != "'" and char == "\\":
                self._escape(quote)
            elif char in "'\"" and quote in ("", char):
                quote, opened = ("" if quote else char), self.position
                self.in_word = True
                self.position += 1
            elif quote == '"' and char == "$":
                self._variable()
            elif not quote and char in _BLANKS:
                self._end_word()
                self.position += 1
            elif not quote and char == "#":
                break
            else:
                self._emit(char)
                self.position += 1
        if quote:
            raise Refused(f"unmatched quote at position {opened + 1}")
        self._end_word()
        if len(self.words) > MAX_WORDS:
            raise Refused(f"more than {MAX_WORDS} words on one line")
        return self.words

    def _emit(self, text: str) -> None:
        self.word.append(text)
        self.in_word = True

    def _end_word(self) -> None:
        if self.in_word:
            self.words.append("".join(self.word))
        self.word.clear()
        self.in_word = False

    def _escape(self, quote: str) -> None:
        following = self.text[self.position + 1 : self.position + 2]
        if following == "x":
            digits = self.text[self.position + 2 : self.position + 4]
            if len(digits) != 2 or not set(digits) <= _HEX:
                raise Refused(f"truncated or invalid hexadecimal sequence at position {self.position + 1}")
            value = int(digits, 16)
            if value == 0:
                raise Refused(f"\\x00 at position {self.position + 1}: a word cannot hold a NUL")
            self._emit(chr(value) if value < 0x80 else bytes([value]).decode("utf-8", "surrogateescape"))
            self.position += 4
        elif following == "$" and quote == '"':
            self._emit("$")
            self.position += 2
        elif following and following in _ESCAPES:
            self._emit(_ESCAPES[following])
            self.position += 2
        else:
            self._emit("\\")
            self.position += 1

    def _variable(self) -> None:
        """Expand what stands at `$`; a list with `[*]` ends the word between its values, as the shell's "$@" does."""
        start = self.position
        text = self.text
        at = start + 1
        braced = text[at : at + 1] == "{"
        at += braced
        begin = at
        if text[at : at + 1] == ".":
            at += 1
        elif not text[at : at + 1] or text[at] not in _NAME or text[at].isdigit():
            raise Refused(f"forbidden first character in an environment variable name at position {at + 1}")
        while text[at : at + 1] and text[at] in _NAME:
            at += 1
        name = text[begin:at]
        default = None
        as_list = False
        if braced:
            if text.startswith("[*]", at):
                as_list = True
                at += 3
            if text[at : at + 1] == "-":
                end = text.find("}", at)
                if end < 0:
                    raise Refused(f"unmatched brace in an environment variable name at position {start + 1}")
                default, at = text[at + 1 : end], end
            if text[at : at + 1] != "}":
                raise Refused(f"unmatched brace in an environment variable name at position {start + 1}")
            at += 1
        value = self.environ.get(name, default if default is not None else "")
        self.position = at
        if not as_list:
            self._emit(value)
            return
        parts = value.split()
        for index, part in enumerate(parts):
            if index:
                self._end_word()
            self._emit(part)


def split(text: str, environ: Mapping[str, str]) -> list[str]:
    """The words of one line (without its line feed); [] for a blank or comment line.

    `environ` holds the variables, including the built-in `.FILE`, `.LINE`, `.SECTION`. Raises Refused with the
    position of what cannot be read.
    """
    if len(text.encode("utf-8", "surrogateescape")) > MAX_LINE_BYTES - 1:
        raise Refused(f"line too long, at most {MAX_LINE_BYTES - 1} characters")
    return _Splitter(text, environ).split()
