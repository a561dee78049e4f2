from clas_lens.lens.latent import latent_language as latent_language
from clas_lens.lens.prompts import lens_prompt as lens_prompt
from clas_lens.lens.top import top_tokens as top_tokens
from clas_lens.lens.words import everyday_words as everyday_words
from clas_lens.lens.words import word_tokens as word_tokens
