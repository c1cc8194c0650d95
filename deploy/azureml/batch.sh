#!/bin/sh
# Create the batch endpoint and send it a folder of prompts. notebooks/azure_batch_endpoint.ipynb does the same.
set -eu
prompts=$(realpath "${1:?the folder of prompts}")
cd "$(dirname "$0")"
az ml batch-endpoint create -f batch-endpoint.yml
az ml batch-deployment create -f batch-deployment.yml --set-default
az ml batch-endpoint invoke -n chaku-batch --input "$prompts" --input-type uri_folder
