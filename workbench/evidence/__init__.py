"""What a method answers, with its own thoughts and with others: from a method to stores, and what they prove.

    collect     `collect`: any method over examples, its thoughts and answers in a store
    dataset     what was collected, as a store
    asking      what is asked of it, checked before the first answer
    journal     what is answered so far, kept beside the store: a collection goes on where it was stopped
    along       what a live model sees along its own answers: entropy, attention to thoughts
    changes     thoughts dropped, swapped between questions, averaged, noised, before they are answered with
    counter     counter-tests: what each change costs
    standard    the standard of evidence: all of these beside costs, swaps slot by slot and readers, and one sentence
    readouts    read-outs for a store that was collected without
    turning     one thought that says a word, moved to say another, and the answer turned by it
    answering   a live model for `widgets.Probe`: one question answered behind thoughts that were moved by hand

Imports config, files, backbone, tasks, methods, store, runs and analysis; draws nothing.
"""
