"""The engines behind :mod:`trainables.generate`: one file per library, and what they have in common.

``contract`` says what an engine is, ``loading`` proves that the right weights answer, ``vllm`` and ``transformers``
do the work. Callers use :mod:`trainables.generate`; a library is imported only when its engine is opened.
"""
