"""Makes every shipped checkpoint again, in stages that resume: codec, image encoder, evaluators, base (`make pretrain`)."""
