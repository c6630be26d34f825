"""What clusters the codes form."""

import numpy as np
import scipy.optimize
import sklearn.cluster


def cluster_accuracy(codes: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> float:
    """Returns the share of codes `[N, D]` whose k-means cluster stands for their class, clusters matched to classes one to one."""
    classes = np.unique(labels)
    clusters = sklearn.cluster.KMeans(len(classes), n_init=10, random_state=seed).fit_predict(codes)
    counts = np.asarray([[np.sum((clusters == k) & (labels == c)) for c in classes] for k in range(len(classes))])
    rows, columns = scipy.optimize.linear_sum_assignment(-counts)
    return float(counts[rows, columns].sum() / len(labels))
