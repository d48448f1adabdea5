"""Spans, metrics and log fields of the engine, through OpenTelemetry's API alone.

Without an SDK that the user configures, OpenTelemetry's API does nothing, and a span costs some microseconds. `scope`
carries the names of the corpus, the saga and the run through threads and tasks, `spans` makes spans, `metrics` declares
the instruments, and `logs` adds the names to log records. Spans and metrics contain no text, no key and no error
message. Only this package imports `opentelemetry`. Imports `types` and `errors` alone. Begin with `spans`.
"""
