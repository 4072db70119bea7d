"""Text of tokens that come one by one, never cut inside a character."""

from collections.abc import Callable, Sequence

_CUT_CHARACTER = "\ufffd"


class TextStream:
    """Turns one row's new tokens into the text that they add after its prompt.

    A token can be part of a character, and its text can depend on the token before it (a leading
    space); so tokens are decoded behind those before them, and text waits until it is whole.

    Args:
        decode: From ids to text, as the tokenizer does it.
        prompt: Ids that were there before.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], prompt: Sequence[int]):
        self._decode = decode
        self._settled = list(prompt)
        self._waiting: list[int] = []

    def push(self, tokens: Sequence[int]) -> str:
        """Returns the text that is certain now; the rest waits for more tokens."""
        self._waiting += tokens
        text = self._added()
        if text.endswith(_CUT_CHARACTER):
            return ""
        self._settled, self._waiting = self._settled + self._waiting, []
        return text

    def flush(self) -> str:
        """Returns what is left, a cut character included."""
        text = self._added()
        self._settled, self._waiting = self._settled + self._waiting, []
        return text

    def _added(self) -> str:
        # A few tokens of context settle spaces and characters; all of them would cost a second
        # for a long text.
        context = self._settled[-8:]
        before = self._decode(context)
        return self._decode([*context, *self._waiting])[len(before.rstrip(_CUT_CHARACTER)) :]
