# Dual numbers in a graph, for second derivatives. Comparisons, and the places of extremes, are those of the values alone: at a tie
# ForwardDiff would look at what is carried along, and the side would depend on the direction.

"an array of dual numbers"
const DualArray{N} = AbstractArray{<:Along,N}

"whether derivatives go through numbers of a type: real ones, dual or not, but no whole numbers and no truth values"
is_smooth(::Type{T}) where {T} = T <: Union{AbstractFloat,Along}

"the type of the values"
value_type(::Type{T}) where {T} = T
value_type(::Type{<:ForwardDiff.Dual{Moving,T}}) where {T} = T

"the values of dual numbers, and all else as it is"
at_value(x::Real) = ForwardDiff.value(x)
at_value(x::AbstractArray) = x
at_value(x::DualArray) = map(ForwardDiff.value, x)
@non_differentiable at_value(::Any)

"what dual numbers carry along"
moves_of(x::DualArray) = map(carried_along, x)

"""
    bilinear(f, x, y)

`f(x, y)`, which is linear in both, of arrays that may be dual: BLAS and NNlib have fast code for values, and for what they carry.
"""
bilinear(f, x::AbstractArray, y::AbstractArray) = f(x, y)
bilinear(f, x::DualArray, y::AbstractArray) = Along.(f(at_value(x), y), f(moves_of(x), y))
bilinear(f, x::AbstractArray, y::DualArray) = Along.(f(x, at_value(y)), f(x, moves_of(y)))
function bilinear(f, x::DualArray, y::DualArray)
    u, v = at_value(x), at_value(y)
    return Along.(f(u, v), f(moves_of(x), v) .+ f(u, moves_of(y)))
end

"the product of two matrices"
product(x::AbstractMatrix, y::AbstractMatrix) = bilinear(*, x, y)

function ChainRulesCore.rrule(::typeof(product), x::AbstractMatrix, y::AbstractMatrix)
    function back(d)
        d = unthunk(d)
        return NoTangent(), bilinear(*, d, transpose(y)), bilinear(*, transpose(x), d)
    end
    return product(x, y), back
end

"the products of two batches of matrices"
products_of(x::AbstractArray{<:Real,3}, y::AbstractArray{<:Real,3}) = bilinear(NNlib.batched_mul, x, y)

function ChainRulesCore.rrule(::typeof(products_of), x::AbstractArray{<:Real,3}, y::AbstractArray{<:Real,3})
    function back(d)
        d = unthunk(d)
        by_x = bilinear((u, v) -> NNlib.batched_mul(u, NNlib.batched_transpose(v)), d, y)
        by_y = bilinear((u, v) -> NNlib.batched_mul(NNlib.batched_transpose(u), v), x, d)
        return NoTangent(), summed_batches(by_x, x), summed_batches(by_y, y)
    end
    return products_of(x, y), back
end

"the sum over a batch of what came back to one matrix for all"
summed_batches(d, x) = size(d, 3) == size(x, 3) ? d : sum(d; dims=3)

# Convolutions, and their transposes by the input, as functions of both arrays.

convolved(x, w, dims) = bilinear((x, w) -> convolution(x, w, nothing, dims), x, w)
by_input(d, w, dims) = bilinear((d, w) -> convolution_back(d, w, dims), d, w)
by_kernel(x, d, dims) = bilinear((x, d) -> kernel_gradient(x, d, dims), x, d)

function ChainRulesCore.rrule(::typeof(convolved), x, w, dims)
    function back(d)
        d = whole_array(unthunk(d))
        return NoTangent(), @thunk(by_input(d, w, dims)), @thunk(by_kernel(x, d, dims)), NoTangent()
    end
    return convolved(x, w, dims), back
end

function ChainRulesCore.rrule(::typeof(by_input), x, w, dims)
    function back(d)
        d = whole_array(unthunk(d))
        return NoTangent(), @thunk(convolved(d, w, dims)), @thunk(by_kernel(d, x, dims)), NoTangent()
    end
    return by_input(x, w, dims), back
end
