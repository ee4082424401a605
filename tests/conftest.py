# SPDX-License-Identifier: Apache-2.0
"""One thread for each test process: spinning threads on shared cores cost more than they bring."""

import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
