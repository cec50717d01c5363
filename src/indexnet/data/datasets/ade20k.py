"""``ade20k``: photographs of all kinds of places in 150 classes, as in the scene parsing challenge of 2016."""

from __future__ import annotations

from indexnet.data.base import DataInfo, register_data
from indexnet.data.segmentation import Pair, SegmentationData, matched_pairs

_FOLDERS = {"train": "training", "test": "validation"}

# first of the names of each class in the challenge's objectInfo150.txt
_CLASSES = (
    "wall,building,sky,floor,tree,ceiling,road,bed,windowpane,grass,cabinet,sidewalk,person,earth,door,table,"
    "mountain,plant,curtain,chair,car,water,painting,sofa,shelf,house,sea,mirror,rug,field,armchair,seat,fence,"
    "desk,rock,wardrobe,lamp,bathtub,railing,cushion,base,box,column,signboard,chest of drawers,counter,sand,sink,"
    "skyscraper,fireplace,refrigerator,grandstand,path,stairs,runway,case,pool table,pillow,screen door,stairway,"
    "river,bridge,bookcase,blind,coffee table,toilet,flower,book,hill,bench,countertop,stove,palm,kitchen island,"
    "computer,swivel chair,boat,bar,arcade machine,hovel,bus,towel,light,truck,tower,chandelier,awning,"
    "streetlight,booth,television,airplane,dirt track,apparel,pole,land,bannister,escalator,ottoman,bottle,buffet,"
    "poster,stage,van,ship,fountain,conveyer belt,canopy,washer,plaything,swimming pool,stool,barrel,basket,"
    "waterfall,tent,bag,minibike,cradle,oven,ball,food,step,tank,trade name,microwave,pot,animal,bicycle,lake,"
    "dishwasher,screen,blanket,sculpture,hood,sconce,vase,traffic light,tray,ashcan,fan,pier,crt screen,plate,"
    "monitor,bulletin board,shower,radiator,glass,clock,flag"
)


@register_data
class Ade20k(SegmentationData):
    """20210 photographs to train on; tested on the 2000 of the challenge's validation split, as is the custom.

    Options as in :class:`~indexnet.data.segmentation.SegmentationData`.
    """

    info = DataInfo(
        name="ade20k",
        title="ADE20K, scene parsing challenge, 150 classes",
        tasks=("segmentation",),
        source="Zhou et al., Scene parsing through ADE20K dataset, CVPR 2017; for research",
        layout="ROOT/images/{training,validation}/NAME.jpg, ROOT/annotations/{training,validation}/NAME.png "
        "(ROOT: the folder ADEChallengeData2016)",
    )
    classes = tuple(_CLASSES.split(","))
    first, void = 1, (0,)

    def pairs(self, split: str) -> list[Pair]:
        folder = _FOLDERS[split]
        return matched_pairs(self.root / "images" / folder, self.root / "annotations" / folder)
