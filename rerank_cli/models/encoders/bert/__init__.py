"""BERT, RoBERTa, XLM-R and CamemBERT for packed rows, without transformers' classes.

Importing those takes longer than importing torch. Entry point: `load.load_bert`.
"""
