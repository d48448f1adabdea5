"""Cuts text into chunks, as a stream.

`content_defined` is the built-in chunker: it chooses cut points from the text around them, so that an edit changes only
the chunks around it. `headings` finds the path of headings above each chunk. `sections` makes chunks of spans, and
divides those that exceed the limit of the model (`model_input`), in tokens that `tokenizer` counts. A chunker of the
user implements the protocol in `base`; `user_chunker` calls it from the parent process, and `user_chunker_role` runs it
in the child process. `worker_pool` lets a chunking process cut whole documents with the built-in chunker: `worker` is
its program, and `cut_texts` what the two send each other. Imports `extensions` and the modules below it. Begin with
`content_defined`.
"""
