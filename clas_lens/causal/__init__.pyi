from clas_lens.causal.patch import patch as patch
from clas_lens.causal.scan import own_minus_others as own_minus_others
from clas_lens.causal.scan import scan as scan
