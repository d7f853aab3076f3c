"""From stores to numbers; nothing here loads torch.

    scores        accuracy with intervals, votes, pass@k, paired tests, costs
    diagnostics   spread, rank, collapse, divergences, worked steps picked as positives (a folder)
    projection    PCA and UMAP to labelled coordinates
    lens          thoughts as words, with the live backbone that it is given
    evidence      the standard of evidence: its tables, and the rule of the sentence that ends it
    exports       thoughts and tables for other programs

Imports files and store.
"""
