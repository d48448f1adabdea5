"""Turns texts into vectors, through an embeddings API or with a model in this process.

`base` has the protocol that both embedders satisfy. `openai` talks to any OpenAI-compatible API: batches, retries,
adaptive concurrency (`_concurrency`), checked responses (`_response`). `local` runs a small model in this process,
without a key or an endpoint. `usage_meter` counts what each call costs: tokens, requests, seconds. Only this package
imports the OpenAI client. Imports `types` and `errors` only. Begin with `base.Embedder`.
"""
