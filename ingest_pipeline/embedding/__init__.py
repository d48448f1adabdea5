"""Turns texts into vectors: through an embeddings API, with a model in this process, or with code of the user.

`base` has the protocol of an embedder of the user, and the one that all clients satisfy. `openai` talks to any
OpenAI-compatible API: batches, retries, adaptive concurrency (`_concurrency`), checked responses (`_response`). `local`
runs a small model in this process, without a key or an endpoint. `user_embedder_client` calls an embedder of the user.
`prompts` and `input_limits` have what is known of families of models. `usage_meter` counts what each call costs:
tokens, requests, seconds. Only this package imports the OpenAI client. Imports `extensions` and the modules below it.
Begin with `base.EmbeddingClient`.
"""
