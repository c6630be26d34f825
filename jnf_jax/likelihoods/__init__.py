"""Likelihoods p(x | z) of one modality. A file is one of them; it exports `Config` and `build(config, spec) -> base.Likelihood`."""
