"""The services that halfcore is compared with. One module per variant; `__main__` starts them."""
