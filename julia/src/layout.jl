# The one place that knows how arrays lie in memory on the two sides.
#
# Canonical arrays (PyTorch's layout, C order, samples first) arrive here with their axes reversed, which costs nothing:
# the memory of a C-order (n, d) array is that of a Julia (d, n) array. So samples come last, images come as W x H x C x N,
# and a convolution's weight (out, in, kH, kW) comes as (kW, kH, in, out), all as Flux wants them. Two things remain. The
# weight of a Dense layer, (out, in) on both sides, comes as (in, out) and has to be transposed. And Flux's Conv flips its
# kernel where PyTorch does not, so the spatial axes of its weight are reversed.

"""
    from_canonical(layer_type, Val(name), array)

A parameter in Flux's layout, from the canonical array with reversed axes. A copy in plain `Array`s, so that BLAS sees it.
"""
from_canonical(::Type, ::Val, array::AbstractArray) = Array(array)
from_canonical(::Type{<:Dense}, ::Val{:weight}, array::AbstractMatrix) = permutedims(Array(array))

"""
    to_canonical(layer_type, Val(name), array)

The inverse of [`from_canonical`](@ref). Axes after those of the parameter (outputs, samples) stay where they are.
"""
to_canonical(::Type, ::Val, array::AbstractArray) = array
function to_canonical(::Type{<:Dense}, ::Val{:weight}, array::AbstractArray)
    return permutedims(array, (2, 1, 3:ndims(array)...))
end

from_canonical(::Type{<:Conv}, ::Val{:weight}, array::AbstractArray) = turned(Array(array), ndims(array) - 2)
to_canonical(::Type{<:Conv{N}}, ::Val{:weight}, array::AbstractArray) where {N} = turned(array, N)

"the array with its first N axes reversed"
turned(array::AbstractArray, N::Integer) = reverse(array; dims=ntuple(identity, N))
