"""What several tests of adaptation look at."""

import pytest

from textcl.encoder import Encoder


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that encoders encode from now on, in their order; the encoders work as always."""
    texts_so_far: list[str] = []
    real = Encoder.encode

    def counted(self: Encoder, texts: list[str], **options: object) -> object:
        texts_so_far.extend(texts)
        return real(self, texts, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Encoder, "encode", counted)
    return texts_so_far
