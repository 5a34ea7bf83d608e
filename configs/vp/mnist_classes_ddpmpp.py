r"""MNIST digits by class, DDPM++, VP SDE: for guidance without a classifier.

python main.py --mode=train  --workdir=runs/classes --config=configs/vp/mnist_classes_ddpmpp.py
python main.py --mode=sample --workdir=runs/classes --config=configs/vp/mnist_classes_ddpmpp.py \
    --task=class --config.task.guidance=3
"""

from configs import mnist


def get_config():
    """The network is given the labels, but for a tenth of the images, and learns for longer."""
    config = mnist.get_config()
    config.sde.name = 'vp'
    config.model.num_classes = 10
    config.training.label_dropout = 0.1
    config.training.num_steps = 3600
    return config
