"""The second stage of a preparation: every chunk gets a vector.

`embed_stage` runs the stage. `vector_resolver` decides where a vector comes from: `lookup` finds one that exists, in
published rows (`published_vectors`) or among recorded answers (`recorded_texts`, `spooled_vectors`). `requests` embeds
the other texts and records every answer before it is used. Begin with `vector_resolver`.
"""
