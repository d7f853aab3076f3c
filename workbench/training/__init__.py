"""Training: one loop for every method, on one process or many, which stops and goes on as if it had not.

    loop         `train`: steps, gradients, what is logged and kept
    plan         `TrainConfig`, every step before it is made, who computes which examples
    stages       what learns in a stage, and the prompts that a method has made for it
    optimizers   AdamW, and Muon for matrices
    look         the thoughts of a few questions while training, so that collapse is seen
    stopping     Ctrl-C: the step is finished and saved first
    launch       processes and sharding (accelerate)
    dry_run      what training would need, without training

Imports config, files, backbone, tasks, methods, runs, and of the analysis its look at thoughts while they are trained.
"""
