from clas_lens.cluster.errors import ClusterError as ClusterError
from clas_lens.cluster.runner import RayCluster as RayCluster
