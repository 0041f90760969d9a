"""Where programs that a model wrote run, as the process sees it that starts them (stage 7).

`sandbox` starts a sandbox, `runner` runs one program in it, `probe` finds the tier of this machine.
`inside` holds what runs within; of it this side imports constants only.
"""
