import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
if not torch.cuda.is_available():  # before anything imports triton, which looks at it when a kernel is defined
    os.environ["TRITON_INTERPRET"] = "1"
