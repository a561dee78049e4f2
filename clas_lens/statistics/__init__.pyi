from clas_lens.statistics.accumulator import NeuronAccumulator as NeuronAccumulator
from clas_lens.statistics.collect import collect_statistics as collect_statistics
from clas_lens.statistics.histogram import bin_edges as bin_edges
from clas_lens.statistics.histogram import quantile as quantile
from clas_lens.statistics.histogram import share_above as share_above
from clas_lens.statistics.neurons import NeuronStatistics as NeuronStatistics
