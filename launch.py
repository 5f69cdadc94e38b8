"""python launch.py -m model=smollm2-135m,smollm2-135m-refusal: the command `rcm`, out of a clone."""

from rcm.launch import command

if __name__ == "__main__":
    command()
