"""Texts to vectors: the embeddings API, and the model that runs on this machine.

Only this package imports `openai`. `openai` is the client: batches, retries, adaptive concurrency (`_concurrency`),
checked responses (`_response`). `local` runs a small model without a key or an endpoint. `pricing` reads configured
prices; nothing here knows one. Imports `types`, `processes` and `errors` only. Begin with `openai.Embedder`.
"""
