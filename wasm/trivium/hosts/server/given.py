"""Which words are given names, so that a capital word behind one is a family name?

Names that are words, towns or months as often (April, Paris, Will, Grace) are left out.
"""

from __future__ import annotations

_WORDS = """
Aaron Abdul Abdullah Abigail Adam Adrian Agnes Ahmad Ahmed Aisha Alan Albert Alejandro Alex
Alexander Alexandra Alexei Alfred Alice Alicia Alina Alison Amanda Amara Amelia Amir Amit Amy Ana
Anastasia Anders Andre Andrea Andreas Andrei Andrew Angela Anil Anita Ann Anna Anne Annelise
Annette Anthony Antoine Anton Antonio Arjun Arthur Ashley Astrid Audrey Barbara Beatrice Benjamin
Bernard Beth Björn Boris Brandon Brenda Brian Bridget Bruce Bruno Camille Carl Carla Carlos Carmen
Carol Caroline Catherine Cecilia Charles Chloe Chris Christian Christina Christine Christopher
Claire Clara Claudia Colin Connor Craig Cynthia Daniel Daniela David Deborah Denise Dennis Derek
Diana Diego Dimitri Dmitri Dominic Donald Donna Dorothy Douglas Edith Edward Eleanor Elena Eli
Elias Elisabeth Eliza Elizabeth Ella Ellen Emil Emilia Emily Emma Enrique Eric Erica Erik Ernest
Esther Ethan Eugene Eva Evelyn Fatima Felix Fernando Fiona Francesca Francis Francisco Frank Franz
Fred Frederick Friedrich Gabriel Gareth Gary Geoffrey George Gerald Gerard Gianni Giovanni Giulia
Giuseppe Gordon Graham Greg Gregory Greta Guillaume Gustav Hanna Hannah Hans Harold Harriet Harry
Hassan Heather Hector Heidi Helen Helena Henrik Henry Hiroshi Howard Hugh Hugo Ian Ibrahim Ines
Ingrid Irene Irina Isaac Isabel Isabella Ivan Jack Jacob Jacqueline Jakob James Jan Jane Janet
Jason Javier Jean Jeffrey Jennifer Jeremy Jerome Jessica Jill Joan Joanna Joao Johan Johanna
Johannes John Jonas Jonathan Jorge Jose Josef Joseph Josephine Joshua Juan Judith Julia Julian
Julie Juliette Julio Jürgen Karen Karin Karl Karla Kate Katarzyna Katherine Kathleen Katja Keith
Kelly Kenneth Kenji Kevin Khalid Kofi Kristina Kumar Lars Laura Lauren Laurent Lena Leo Leon
Leonard Leonardo Leonie Leslie Liam Lilian Linda Lisa Lorenzo Louis Louise Luca Lucas Lucia Lucy
Ludmila Ludwig Luigi Luis Lukas Lydia Magdalena Magnus Manuel Marc Marcel Marco Marcus Margaret
Maria Marie Marina Mario Marion Marta Martha Martin Martina Mateo Mathias Matteo Matthew Maurice
Max Maxim Maximilian Megan Mei Melanie Melissa Mia Michael Michel Michelle Miguel Mikhail Mohamed
Mohammed Monica Monika Muhammad Mustafa Nadia Nancy Naomi Natalia Natalie Natasha Nathan Neil
Nicholas Nicola Nicolas Nicole Nigel Nikita Nina Noah Nora Norman Oleg Olga Oliver Olivia Olivier
Omar Oscar Oskar Otto Pablo Pamela Paolo Patricia Patrick Paul Paula Paulina Pavel Pedro Penelope
Peter Petra Philip Philippe Pierre Pietro Priya Rachel Rafael Rahul Raj Rajesh Ralph Ramon Rania
Raymond Rebecca Renate Ricardo Richard Rita Robert Roberto Roger Roland Ronald Rosa Rosemary
Roxane Ruth Ryan Sabine Salma Samantha Samir Samuel Sandra Sanjay Sara Sarah Scott Sean Sebastian
Serge Sergei Sergio Sharon Sheila Shirley Simon Simone Sofia Sonia Sophia Sophie Stefan Stefania
Stefano Stella Stephanie Stephen Steven Stuart Sunil Susan Susanne Svetlana Sylvia Takeshi Tamara
Tanya Tatiana Teresa Theo Theodore Theresa Thomas Tim Timothy Tobias Tom Tomas Tomás Tony Ulrich
Ursula Valentina Valerie Vera Veronica Viktor Vincent Vivian Vladimir Walter Wanda Wendy Werner
Wilhelm William Xavier Yasmin Yolanda Yuki Yusuf Yves Yvonne Zachary Zoe
"""

GIVEN = frozenset(_WORDS.split())

FAMILY = (
    "王李张刘陈杨赵周吴徐孙胡朱郭罗郑梁谢宋唐许韩冯邓曹彭曾肖董潘袁蔡蒋杜魏苏吕丁卢姚沈姜崔谭陆"
    "范汪廖贾傅邹孟秦阎薛侯郝邵汤尹"
)
"""Chinese family names that are seldom anything else."""

CALLED = (
    "伟芳娜秀英敏静丽强磊军洋勇艳杰娟涛超霞刚桂兰建辉玲玉梅琴萍莉雪鹏宇浩轩梓涵欣怡雨婷佳琪思晨"
    "博俊凯旭峰斌鑫丹倩颖慧雅洁琳璐瑶悦晓贵荣志毅坤淑珍凤莲翠萱彤妍蕾薇菲雯嘉豪睿诚宏振兵娅媛钰"
    "婉娴雁蓉茜芬芸菊瑞彬彪武斐晖晟昊晴曦栋楠炜煜琦瑜琨皓瑾国明文海龙飞红云华平春生子小永家德林"
)
"""What stands in Chinese given names; two of these behind a family name are one."""
