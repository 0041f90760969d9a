def activate(entry):
    pass
