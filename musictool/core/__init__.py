"""The shared model package: blocks of which every model here is composed.

Blocks take sub-modules and numbers. They know no files, no configurations and no meaning of a token. Norms and
activations are torch's own (`torch.nn.RMSNorm`, `torch.nn.LayerNorm`).

One shape alphabet for every tensor in the project:

    B  batch          T  steps of the sequence at hand    S  steps of what is attended to
    D  width          H  heads         P  width of a head     F  hidden width of a feed-forward
    V  vocabulary     L  layers        R  rows of a cache
    K  codebooks      C  audio channels    N  samples         M  mel bins
"""
