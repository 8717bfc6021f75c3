"""Where parallel examples come from: one module per source, all looking like :class:`base.Corpus` to the rest."""
