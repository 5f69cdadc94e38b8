"""Results that travel: other programs' logs read, and what a run found written as files that others can check.

Read     an Inspect log and lm-eval's samples, as replies with what their scorers say (`python -m rcm.judges FILE`); a
         run folder from another machine, verified before anybody trusts a figure of it
Written  a direction with its terms of use in the header, an Inspect log of a run of `behaviour`, and a section for a
         model card (`python -m rcm.formats`)

Nothing read is trusted: no pickle is opened, no path inside a file is followed, and what is malformed is refused in one
sentence. What is written cannot be loaded into an inference engine: no projection, no control vector for llama.cpp,
vLLM or lm-eval, since those engines take a strength of either sign, and a minus would make a remover of refusal of it.
"""
