"""A reranker without a model."""

from collections.abc import Sequence


class WholeWords:
    """Prefers texts that have many words of the question."""

    async def rerank(self, question: str, texts: Sequence[str]) -> list[float]:
        """The share of the question's words that each text has."""
        wanted = words(question)
        return [len(wanted & words(text)) / max(1, len(wanted)) for text in texts]


def words(text: str) -> set[str]:
    """The words of a text in lower case."""
    return {word.strip(".,:;?!") for word in text.lower().split()}
