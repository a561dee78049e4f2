"""The latent language: which language's words the model has in mind, layer by layer, read with the logit lens."""

from clas_lens.doors import open_door

open_door(__name__)
